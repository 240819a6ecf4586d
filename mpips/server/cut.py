"""A server's tables as they are at a cut, while pushes go on: a shard is copied before it is changed by the first push
that comes after the cut, and what comes late from before the cut is applied to the copy, too.

Which is which every push says itself (`Push.cut`): by the first that comes after a cut a server learns of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mpips.fabric import Fabric
from mpips.fabric.arena import Allocator
from mpips.messages import CutOver
from mpips.server.shards import Shards
from mpips.server.updates import Updates
from mpips.table import header_offsets
from mpips.tasks.countdown import Then, nothing

Array = np.ndarray[Any, Any]

T = TypeVar("T")

LEAST_BYTES = 1 << 20


class Aside(NamedTuple):
    """What there is of a table at a cut.

    Parameters
    ----------
    shards : the table's, as they are now.
    copies : those of its shards that have changed since the cut, as they were at the cut.
    exposed : (shards,) bool, those that have not, and must be copied before they do.
    steps : by worker's identity, the step of its last push before the cut, of those that have pushed since.
    """

    shards: Shards
    copies: Shards
    exposed: Array
    steps: dict[int, int]

    @property
    def versions(self) -> Array:
        """Of each shard (shards,) int64, at the cut."""
        versions, copied = self.shards.versions.copy(), np.array(self.copies.held, np.int64)
        versions[copied] = self.copies.versions[copied]
        return versions

    def last_pushes(self) -> dict[int, int]:
        """By worker, the last of its pushes before the cut that is applied wherever it pushes to."""
        return self.shards.last_pushes() | self.steps

    def take(self, shard: int, copy: Callable[[int, Shards], T]) -> T:
        """Have a shard copied as it was at the cut; it is not needed any more then."""
        if self.exposed[shard]:
            self.exposed[shard] = False
            return copy(shard, self.shards)
        copied = copy(shard, self.copies)
        self.copies.give_back(shard)
        self.copies.lead([other for other in self.copies.led if other != shard])
        return copied

    def take_aside(self, shard: int, copy: Callable[[int, Shards], T | None]) -> T | None:
        """The same beside this server's loop, if the shard is still as it was at the cut, and stays so meanwhile."""
        version = int(self.shards.versions[shard])
        if not self.exposed[shard]:
            return None
        copied = copy(shard, self.shards)
        if copied is None or int(self.shards.versions[shard]) != version:
            return None
        self.exposed[shard] = False
        return copied


class CutHere:
    """One for each server.

    The copies lie in memory of their own, which is as large as what has changed meanwhile, and kept for the next cut.

    Parameters
    ----------
    tables : this server's shards of each table; there may be none yet.
    fabric : this server's.

    Attributes
    ----------
    on_over : called when a cut is over before all of it has been taken.
    """

    def __init__(self, tables: Sequence[Shards], fabric: Fabric) -> None:
        self.on_over: Then = nothing
        self._tables = tables
        self._fabric = fabric
        self._number = 0  # the newest cut that is known here
        self._asides: list[Aside] = []  # empty: no cut is under way
        self._memory = np.empty(0, np.uint8)
        self._copies: list[Shards] = []
        fabric.on(CutOver, self._over)

    # --- what changes -----------------------------------------------------------------------------------------------

    def push(
        self,
        table: int,
        cut: int,
        identities: Iterable[int],
        lo: int,
        hi: int,
        keys: Array | None,
        values: Updates,
        rule: Mapping[str, float],
    ) -> None:
        """A push of some workers, which comes after `cut`, is going to be applied, as `Shards.apply` has it."""
        aside = self._aside(table, cut)
        if aside is None:
            return
        if cut == self._number:
            self._note_steps(aside, identities)
            if aside.exposed.any():
                touched, _ = aside.shards.touched(lo, hi, keys)
                self._copy(aside, touched[aside.exposed[touched]])
        elif aside.copies.held:
            if keys is not None:
                keys, values = _of_shards(aside, keys, values)
            aside.copies.apply(lo, hi, keys, values, rule)

    def rewrite(
        self, table: int, cut: int, identity: int, concerned: list[int], run: Callable[[Shards, list[int]], Any]
    ) -> None:
        """A function that a worker calls after `cut` is going to write to some shards; `run` has it do so."""
        aside = self._aside(table, cut)
        if aside is None:
            return
        if cut == self._number:
            self._note_steps(aside, [identity])
            self._copy(aside, np.array([shard for shard in concerned if aside.exposed[shard]], np.int64))
        else:
            mine = set(aside.copies.held)
            run(aside.copies, [shard for shard in concerned if shard in mine])

    def _aside(self, table: int, cut: int) -> Aside | None:
        """What there is of a table at the cut that is under way, or begins with what comes after `cut`, if any."""
        if cut > self._number:
            self.begin(cut)
        return self._asides[table] if self._asides else None

    @staticmethod
    def _note_steps(aside: Aside, identities: Iterable[int]) -> None:
        for identity in identities:
            if identity not in aside.steps:
                aside.steps[identity] = aside.shards.clock.time(identity, 0, aside.shards.spec.positions)

    @staticmethod
    def _copy(aside: Aside, shards: Array) -> None:
        for shard in shards.tolist():
            aside.copies.take_copy(shard, aside.shards)
            aside.exposed[shard] = False
        if shards.size:
            aside.copies.lead(sorted(aside.copies.held))

    # --- from a cut to what is written of it ------------------------------------------------------------------------

    def begin(self, cut: int) -> None:
        """From here on things come after this cut; nothing, if that is known."""
        if cut <= self._number:
            return
        self._give_up()
        self._number = cut
        self._make_room()
        for shards, copies in zip(self._tables, self._copies, strict=True):
            exposed = np.zeros(shards.spec.shards, np.bool_)
            exposed[shards.led] = True
            self._asides.append(Aside(shards, copies, exposed, {}))

    def _make_room(self) -> None:
        """Memory for all that may be copied; it costs nothing before it is used."""
        size = LEAST_BYTES + 4 * self._fabric.space.used
        if self._memory.size >= size // 2 and self._copies:
            return
        specs = [shards.spec for shards in self._tables]
        offsets = header_offsets(specs)
        self._memory = np.empty((size + offsets[-1] + 7) & -8, np.uint8)
        space = Allocator(self._memory.size)
        space.first(offsets[-1])
        self._copies = [
            Shards(spec, headers, self._memory, space) for spec, headers in zip(specs, offsets, strict=False)
        ]

    def end(self) -> None:
        """Nothing of the cut is needed any more."""
        for aside in self._asides:
            for shard in list(aside.copies.held):
                aside.copies.give_back(shard)
            aside.copies.lead([])
        self._asides = []

    def _over(self, source: int, message: CutOver) -> None:
        if message.generation >= self._number:
            self._give_up()
            self._number = message.generation

    def _give_up(self) -> None:
        if self._asides:
            self.on_over()
            self.end()

    @property
    def asides(self) -> list[Aside]:
        """What there is of each table at the cut."""
        return self._asides


def _of_shards(aside: Aside, keys: Array, values: Updates) -> tuple[Array, Array]:
    """Of a push's keys and values those whose shards have been copied."""
    here = np.zeros(aside.exposed.size, np.bool_)
    here[aside.copies.held] = True
    touched, starts = aside.shards.touched(0, 0, keys)
    runs = [
        slice(a, b) for shard, (a, b) in zip(touched.tolist(), pairwise(starts.tolist()), strict=True) if here[shard]
    ]
    none = slice(0, 0)
    return np.concatenate([keys[run] for run in [none, *runs]]), np.concatenate([values[run] for run in [none, *runs]])
