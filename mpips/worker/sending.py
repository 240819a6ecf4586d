"""A push under way: which part of it each server is sent, and how a later placement splits what is not acknowledged.

A shard function that writes goes the same way, with its argument for values.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mpips.fabric import Fabric
from mpips.kernels.copies import group_starts
from mpips.messages import CallShards, Coded, Product, Push
from mpips.table import TableSpec
from mpips.tasks import Task
from mpips.worker.keys import Placement
from mpips.worker.steps import Step

Array = np.ndarray[Any, Any]
Segment = tuple[int, int]
Rule = dict[str, float]


class Part(NamedTuple):
    """What one server is sent of a push.

    Parameters
    ----------
    server : its rank.
    segments : which rows of the push, as ``[start, end)`` each; empty of a push to a range.
    packed : offset of keys and of values, entries, and how filters packed them; None where they lie as they are.
    again : whether it is sent because of a view, and not for the first time.
    """

    server: int
    segments: list[Segment]
    packed: tuple[int, int, int, Coded | None] | None = None
    again: bool = False


class Calling(NamedTuple):
    """A shard function that writes, and the keys ``[lo, hi)`` that it is run on; `hi` None: all from `lo` on."""

    function: str
    lo: int
    hi: int | None


class Sending:
    """A push under way; or a function that writes.

    Parameters
    ----------
    spec, index : the table and its number in the job.
    task : the push.
    step : what it is known by.
    about : the positions ``[lo, hi)`` that it is about.
    keys : (n,) uint64, grouped by server and shard; None for a range, and for a function.
    values : (n, push_width) of the table's dtype, in this order; of a product the matrix `right`.
    slot : where keys and then values lie in the arena; None where filters packed them.
    placement : by which it is split.
    calling : the function; None for a push.
    rule : parameters of the table's rule that are others for this push.
    product : that the updates are, if so.

    Attributes
    ----------
    parts : what servers are sent and have not acknowledged, by the part's number.
    """

    __slots__ = (
        "_hi",
        "_index",
        "_keys",
        "_lo",
        "_numbers",
        "_product",
        "_rule",
        "_slot",
        "_spec",
        "_step",
        "_values",
        "calling",
        "parts",
        "placement",
        "task",
    )

    def __init__(
        self,
        spec: TableSpec,
        index: int,
        task: Task[Any],
        step: Step,
        about: tuple[int, int],
        keys: Array | None,
        values: Array,
        slot: int | None,
        placement: Placement,
        calling: Calling | None = None,
        rule: Rule | None = None,
        product: Product | None = None,
    ) -> None:
        self.task = task
        self.calling = calling
        self._rule = rule or {}
        self._product = product
        self.parts: dict[int, Part] = {}
        self.placement = placement
        self._spec = spec
        self._index = index
        self._step = step
        self._lo, self._hi = about
        self._keys = keys
        self._values = values
        self._slot = slot
        self._numbers = 0

    def add(self, part: Part) -> int:
        """A part, and its number among all that there have been."""
        self._numbers += 1
        self.parts[self._numbers] = part
        return self._numbers

    @property
    def about(self) -> tuple[int, int]:
        """The positions ``[lo, hi)`` that it is about."""
        return self._lo, self._hi

    @property
    def is_packed(self) -> bool:
        """Whether keys and values lie in the arena only as filters have packed them for each server."""
        return self._slot is None

    # --- what servers are told --------------------------------------------------------------------------------------

    def message(self, number: int, after: list[int]) -> Push | CallShards:
        """What the server of a part is told, once the task has its time and those that it comes after."""
        time, view = self.task.time, self.placement.view
        identity, step, cut = self._step
        if self.calling is not None:
            assert self._slot is not None
            return CallShards(
                time, after, view, number, self._index, identity, step,
                *self.calling, self._slot, self._values.size, cut,
            )  # fmt: skip
        keys, values, count, coded, more = self._place_of(self.parts[number])
        return Push(
            time, after, view, number, self._index, identity, step,
            self._lo, self._hi, count, keys, values, coded, more, cut, self._rule, self._product,
        )  # fmt: skip

    def _place_of(self, part: Part) -> tuple[int | None, int, int, Coded | None, list[tuple[int, int, int]]]:
        """Where a part's keys and values lie, how many they are, how they are packed, and where more of them lie."""
        if part.packed is not None:
            return *part.packed, []
        slot = self._slot
        assert slot is not None
        if self._keys is None:
            return None, slot, self._hi - self._lo, None, []
        cells, size = slot + 8 * self._keys.size, self._values.itemsize * self._values.shape[1]
        if not part.segments:
            return slot, cells, 0, None, []
        more = [(slot + 8 * start, cells + start * size, end - start) for start, end in part.segments[1:]]
        start, end = part.segments[0]
        return slot + 8 * start, cells + start * size, end - start, None, more

    # --- another placement ------------------------------------------------------------------------------------------

    def split_again(self, placement: Placement, changed: set[int]) -> list[int]:
        """Split what the servers in `changed` were sent, or were to be sent, among those that have the shards now; the
        numbers of the new parts.

        Parameters
        ----------
        placement : which server has which shard now.
        changed : the servers that have other shards now.
        """
        before, self.placement = self.placement, placement
        affected = {number: part for number, part in self.parts.items() if part.server in changed}
        if not affected:
            return []
        had = {part.server for part in affected.values()}
        segments = self._segments(affected.values())
        if self._keys is None or self._spec.aggregate:
            bits = self._spec.shard_bits if self._spec.kind == "dense" else 0
            for shard in range(self._lo >> bits, ((self._hi - 1) >> bits) + 1):
                if before.heads[shard] in had:
                    segments.setdefault(placement.heads[shard], [])
        for number in affected:
            del self.parts[number]
        numbers = [self.add(Part(server, segments[server], again=True)) for server in sorted(segments)]
        task = self.task
        task.peers = {part.server for part in self.parts.values()}
        task.asked = (task.asked - changed) | task.peers
        return numbers

    def _segments(self, parts: Iterable[Part]) -> dict[int, list[Segment]]:
        """The segments of some parts' rows, cut where another server has the shard, by server."""
        spec, found = self._spec, dict[int, list[Segment]]()
        for start, end in (segment for part in parts for segment in part.segments):
            assert self._keys is not None
            shards, starts = np.empty(end - start, np.int64), np.empty(end - start + 1, np.int64)
            count = group_starts(self._keys[start:end], spec.kind == "dense", spec.shard_bits, shards, starts)
            for i in range(count):
                segments = found.setdefault(self.placement.heads[shards[i]], [])
                first, last = start + int(starts[i]), start + int(starts[i + 1])
                if i > 0 and segments and segments[-1][1] == first:  # within a segment keys are in order
                    first = segments.pop()[0]
                segments.append((first, last))
        return found

    def lay_plain(self, numbers: Iterable[int], fabric: Fabric) -> None:
        """Lay what filters had packed for one server, and these parts are to tell others, into this worker's arena as
        it is: those could not unpack it.

        Raises
        ------
        ArenaFull
            when there is no room for it.
        """
        keys, values = self._keys, self._values
        if keys is None or self._slot is not None or all(self.parts[number].packed for number in numbers):
            return
        slot = fabric.space.allocate(keys.nbytes + values.nbytes)
        fabric.arena[slot : slot + keys.nbytes] = keys.view(np.uint8)
        fabric.arena[slot + keys.nbytes : slot + keys.nbytes + values.nbytes] = values.reshape(-1).view(np.uint8)
        self._slot = slot
        self.task.on_end(lambda: fabric.space.free(slot))
