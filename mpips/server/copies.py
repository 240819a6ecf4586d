"""Where a server stands in the chains of a table's shards, and which pushes are applied to its copies."""

from typing import Any, NamedTuple

import numpy as np

from mpips.server.clock import RangeClock
from mpips.server.shards import Shards
from mpips.views.chains import chains_of
from mpips.views.view import View

NOBODY = -1
NO_COPY = -1  # as the number of the last change of a copy that is not there, or can't be gone on with

Path = tuple[int, int]  # head and predecessor


class Wanted(NamedTuple):
    """A server that comes after this one in the chain of a shard wants a copy; `number` is that of the one it has."""

    server: int
    table: int
    shard: int
    number: int


class Copies:
    """Where a table's shards stand in their chains, as this server sees it.

    Attributes
    ----------
    before, after : (shards,) int64, the servers next to this one: changes come from one and go to the other; NOBODY
        where there is none. A server that is getting its copy from this one is after it once it has been sent that.
    since : (shards,) int64, the view since which `before` is what it is; what has been sent in one before that is not
        for the copy that is here now.
    coming : (shards,) int64, the server after this one that is getting a copy, or is to get one; NOBODY where there is
        none.
    is_new : (shards,) bool, whether the copy here, if there is one, is not of the settled chain yet.
    any_is_new : whether any is.
    paths : the path on which changes of each shard come; None where this server is the head, or has no part.
    clocks : what is applied to the copies, by path.
    sent : (shard, server) whose copy was sent to a server that is not of the settled chain yet.
    """

    def __init__(self, shards: Shards) -> None:
        count = shards.spec.shards
        self.shards = shards
        self.before = np.full(count, NOBODY, np.int64)
        self.after = np.full(count, NOBODY, np.int64)
        self.since = np.zeros(count, np.int64)
        self.coming = np.full(count, NOBODY, np.int64)
        self.is_new = np.zeros(count, np.bool_)
        self.any_is_new = False
        self.paths: list[Path | None] = [None] * count
        self.clocks: dict[Path, RangeClock] = {}
        self.sent: set[tuple[int, int]] = set()

    def clock(self, path: Path | None) -> RangeClock:
        """What is applied to the shards on a path; None: to those that are led."""
        if path is None:
            return self.shards.clock
        found = self.clocks.get(path)
        if found is None:
            found = self.clocks[path] = RangeClock(self.shards.spec.positions)
        return found

    @property
    def have_successors(self) -> bool:
        """Whether a server comes after this one in any chain."""
        return bool((self.after != NOBODY).any() or (self.coming != NOBODY).any())

    def accepts(self, shards: Any, source: int, view: int) -> Any:
        """Whether changes of shards, (n,) int64 or one of them, that a server has sent in a view are for the copies
        that are here; (n,) bool, or one.
        """
        return (self.before[shards] == source) & (self.since[shards] <= view)

    def positions(self, shard: int) -> tuple[int, int]:
        """The positions of a shard that clocks count."""
        return self.shards.spec.shard_range(shard) if self.shards.spec.kind == "dense" else (shard, shard + 1)

    def viewed(self, view: View, me: int) -> list[Wanted]:
        """Take the places of a view; the copies that this server must ask for, of the servers before it."""
        shards, wanted = self.shards, []
        held, led = set(shards.held), list[int]()
        coming_before = {(shard, int(self.coming[shard])) for shard in np.flatnonzero(self.coming >= 0).tolist()}
        for shard, chain in enumerate(chains_of(view, shards.spec).chains):
            before, after, coming, path = NOBODY, NOBODY, NOBODY, None
            if me not in chain.servers:
                shards.numbers[shard] = NO_COPY  # the others may go on in another way than this copy has begun
            else:
                at = chain.servers.index(me)
                if at > 0:
                    before = chain.servers[at - 1]
                    path = chain.servers[0], before
                if at + 1 < len(chain.servers):
                    next_ = chain.servers[at + 1]
                    if at + 1 < chain.copies:
                        after = next_
                    else:
                        coming = next_
                        if (shard, next_) in self.sent and (shard, next_) in coming_before:
                            after = next_
                if at == 0:
                    led.append(shard)
                if at >= chain.copies and (shard not in held or before != self.before[shard]):
                    wanted.append(Wanted(before, 0, shard, int(shards.numbers[shard]) if shard in held else NO_COPY))
                if shard in held and path != self.paths[shard]:
                    lo, hi = self.positions(shard)
                    entries = self.clock(self.paths[shard]).entries(lo, hi)
                    self.clock(path).assign(lo, hi, entries)
                self.paths[shard] = path
            self.is_new[shard] = me in chain.servers[chain.copies :]
            if before != self.before[shard]:
                self.since[shard] = view.number
            self.before[shard], self.after[shard], self.coming[shard] = before, after, coming
        self.any_is_new = bool(self.is_new.any())
        self.sent = {(shard, server) for shard, server in self.sent if self.after[shard] == server}
        shards.led = led
        return wanted
