"""Where a server stands in the chains of a table's shards, and which pushes are applied to its copies."""

from typing import Any, NamedTuple

import numpy as np

from mpips.server.behind import NO_COPY, Behind
from mpips.server.clock import RangeClock
from mpips.server.shards import Shards
from mpips.views.chains import chains_of
from mpips.views.view import View

NOBODY = -1

Path = tuple[int, ...]


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
        where there is none.
    since : (shards,) int64, the view since which `before` is what it is; what has been sent in one before that is not
        for the copy that is here now.
    coming : (shards,) int64, the server after this one that is getting a copy, or is to get one; NOBODY where there is
        none.
    behind : what those lack.
    missing : (shards,) bool, whether this server is getting a copy itself, and has not been sent that.
    paths : the servers before this one, head first; none where it is the head, or has no part.
    clocks : what is applied to the copies, by path.
    """

    def __init__(self, shards: Shards) -> None:
        count = shards.spec.shards
        self.shards = shards
        self.before = np.full(count, NOBODY, np.int64)
        self.after = np.full(count, NOBODY, np.int64)
        self.since = np.zeros(count, np.int64)
        self.coming = np.full(count, NOBODY, np.int64)
        self.behind = Behind(shards.spec)
        self.missing = np.zeros(count, np.bool_)
        self.paths: list[Path] = [()] * count
        self.clocks: dict[Path, RangeClock] = {}

    def clock(self, path: Path) -> RangeClock:
        """What is applied to the shards on a path; without servers on it: to those that are led."""
        if not path:
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
        path: Path
        held, led, coming_before = set(shards.held), list[int](), self.coming.copy()
        for shard, chain in enumerate(chains_of(view, shards.spec).chains):
            before, after, coming, path = NOBODY, NOBODY, NOBODY, ()
            if me not in chain.servers:
                shards.numbers[shard] = NO_COPY  # the others may go on in another way than this copy has begun
            else:
                at = chain.servers.index(me)
                path = chain.servers[:at]
                if at > 0:
                    before = chain.servers[at - 1]
                if at + 1 < chain.copies:
                    after = chain.servers[at + 1]
                elif at + 1 < len(chain.servers):
                    coming = chain.servers[at + 1]
                if at == 0:
                    led.append(shard)
                if at >= chain.copies and (shard not in held or before != self.before[shard]):
                    wanted.append(Wanted(before, 0, shard, int(shards.numbers[shard]) if shard in held else NO_COPY))
                if shard in held and path != self.paths[shard]:
                    lo, hi = self.positions(shard)
                    entries = self.clock(self.paths[shard]).entries(lo, hi)
                    self.clock(path).assign(lo, hi, entries)
                self.paths[shard] = path
            if before != self.before[shard]:
                self.since[shard] = view.number
            self.before[shard], self.after[shard], self.coming[shard] = before, after, coming
        used = set(self.paths)
        self.clocks = {path: clock for path, clock in self.clocks.items() if path in used}
        self.behind.keep((self.coming == coming_before) & (self.coming != NOBODY))
        self.missing &= self.before != NOBODY
        self.missing[[each.shard for each in wanted]] = True
        shards.lead(led)
        return wanted
