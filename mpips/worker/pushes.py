"""The pushes of one worker to one table: laid into its arena, sent in order, and remembered until they are applied."""

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.kernels.gather import copy_finite, copy_finite_rows
from mpips.messages import Push
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.tasks.issued import SendIt
from mpips.tasks.lane import Lane
from mpips.worker.keys import KeyRangeError, Keys, Placement, key_range
from mpips.worker.outgoing import Outgoing

Array = np.ndarray[Any, Any]


class ShapeError(Error, ValueError):
    """Values, or an array to read into, that do not have the shape that the keys ask for."""


class NonFiniteError(Error, ValueError):
    """NaN or infinite values in a push, which is refused as a whole."""


class Pushes:
    """One for each table of a worker.

    Parameters
    ----------
    spec, index : the table and its number in the job.
    placement : which server has which of its shards.
    fabric, issued, outgoing : this worker's.

    Attributes
    ----------
    sent : how many have been sent; the next one's step is one more.
    """

    def __init__(
        self,
        spec: TableSpec,
        index: int,
        placement: Placement,
        fabric: Fabric,
        issued: Issued,
        outgoing: Outgoing,
    ) -> None:
        self.sent = 0
        self._spec = spec
        self._index = index
        self._placement = placement
        self._fabric = fabric
        self._issued = issued
        self._outgoing = outgoing
        self._push_bytes = spec.push_width * spec.itemsize
        self._lane = Lane()
        self._made: deque[Task[None]] = deque()

    def push(self, keys: Any, values: Any, after: list[Task[Any]], within: range | slice | None) -> Task[None]:
        """As `Table.push`."""
        if isinstance(keys, range | slice):
            if self._spec.kind == "sparse":
                raise KeyRangeError(f'table "{self._spec.name}" is sparse: push a key list')
            lo, hi = key_range(self._spec, keys)
            assert hi is not None
            rows = self._rows(values, hi - lo)
            if not self._spec.push_filters:
                return self._push_range(lo, hi, rows, after)
            keys, within = np.arange(lo, hi, dtype=np.uint64), range(lo, hi)
        if not isinstance(keys, Keys):
            keys = self._placement.keys(keys)
        lo, hi = self._about(keys, within)
        rows = self._rows(values, keys.array.size)
        if self._outgoing.filters_pushes:
            return self._push_filtered(keys, rows, lo, hi, after)
        return self._push_keys(keys, rows, lo, hi, after)

    def _about(self, keys: Keys, within: range | slice | None) -> tuple[int, int]:
        """The positions that a push of a key list is about."""
        if within is None:
            return 0, self._spec.positions
        if self._spec.kind == "sparse":
            raise KeyRangeError(f'table "{self._spec.name}" is sparse: its pushes are about all of it')
        lo, hi = key_range(self._spec, within)
        assert hi is not None
        if keys.array.size and not (lo <= int(keys.array[0]) and int(keys.array[-1]) < hi):
            raise KeyRangeError(
                f'table "{self._spec.name}": keys {keys.array[0]}…{keys.array[-1]} are not within [{lo}, {hi})'
            )
        return lo, hi

    def _rows(self, values: Any, n: int) -> Array:
        width = self._spec.push_width
        rows: Array = np.ascontiguousarray(values, self._spec.dtype)
        if rows.shape != (n, width) and not (width == 1 and rows.shape == (n,)):
            shape = (n,) if width == 1 else (n, width)
            raise ShapeError(f'table "{self._spec.name}": {n} keys need values of shape {shape}, got {rows.shape}')
        return rows.reshape(n, width)

    def _push_keys(self, keys: Keys, values: Array, lo: int, hi: int, after: list[Task[Any]]) -> Task[None]:
        spec, n = self._spec, keys.array.size
        task: Task[None] = Task(self._issued, f'push of {n:,} keys to table "{self._spec.name}"')
        if n == 0 and not spec.aggregate:
            self._issued.when(task, lambda: task.finish(None), after)
            return task
        slot = self._issued.room(n * (8 + self._push_bytes))
        at = slot + 8 * n
        own_keys = self._fabric.values(self._fabric.rank, slot, n, "uint64")
        cells = self._fabric.values(self._fabric.rank, at, values.size, spec.dtype)
        if keys.order.size:
            np.take(keys.array, keys.order, out=own_keys, mode="clip")  # "raise" would buffer
            bad = copy_finite_rows(values, keys.order, cells.reshape(values.shape))
        else:
            own_keys[:] = keys.array
            bad = copy_finite(values.reshape(-1), cells)
        if bad:
            self._fabric.space.free(slot)
            self._refuse(bad, values, keys.array)
        parts = self._parts(keys, lo, hi)
        self._outgoing.count((server, (end - start) * (8 + self._push_bytes)) for server, (start, end) in parts.items())

        def send(time: int, after: list[int]) -> None:
            self.sent += 1
            for server, (start, end) in parts.items():
                own = slot + 8 * start, at + start * self._push_bytes
                self._fabric.send(server, Push(time, after, self._index, self.sent, lo, hi, end - start, *own, None))

        task.on_end(lambda: self._fabric.space.free(slot))
        return self._send(task, parts, send, after)

    def _parts(self, keys: Keys, lo: int, hi: int) -> dict[int, tuple[int, int]]:
        """The servers that a push of keys goes to, and where the group of each begins and ends.

        A table that aggregates has it sent to all servers of the range: they count who has pushed.
        """
        bounds = keys.bounds
        about = self._placement.servers_of(lo, hi) if self._spec.aggregate else ()
        return {
            server: (bounds[i], bounds[i + 1])
            for i, server in enumerate(self._placement.servers)
            if bounds[i + 1] > bounds[i] or server in about
        }

    def _push_filtered(self, keys: Keys, values: Array, lo: int, hi: int, after: list[Task[Any]]) -> Task[None]:
        """The same through the table's filters, which are one chain for each server."""
        task: Task[None] = Task(self._issued, f'push of {keys.array.size:,} keys to table "{self._spec.name}"')
        order = keys.order if keys.order.size else np.arange(keys.array.size)
        grouped = np.empty_like(values)
        bad = copy_finite_rows(values, order, grouped)
        if bad:
            self._refuse(bad, values, keys.array)
        parts = {
            server: (keys.array[order[start:end]], grouped[start:end])
            for server, (start, end) in self._parts(keys, lo, hi).items()
        }
        laid = self._outgoing.lay(task, "push", parts)
        if not self._spec.aggregate:
            laid = {server: packet for server, packet in laid.items() if packet.entries}
        if not laid:
            self._issued.when(task, lambda: task.finish(None), after)
            return task

        def send(time: int, after: list[int]) -> None:
            self.sent += 1
            for server, (at, middle, count, coded) in laid.items():
                message = Push(time, after, self._index, self.sent, lo, hi, count, at, middle, coded)
                self._fabric.send(server, message)

        return self._send(task, laid, send, after)

    def _push_range(self, lo: int, hi: int, values: Array, after: list[Task[Any]]) -> Task[None]:
        task: Task[None] = Task(self._issued, f'push of rows [{lo}, {hi}) to table "{self._spec.name}"')
        if lo == hi:
            self._issued.when(task, lambda: task.finish(None), after)
            return task
        slot = self._issued.room(values.nbytes)
        cells = self._fabric.values(self._fabric.rank, slot, values.size, self._spec.dtype)
        bad = copy_finite(values.reshape(-1), cells)
        if bad:
            self._fabric.space.free(slot)
            self._refuse(bad, values, range(lo, hi))
        servers = self._placement.servers_of(lo, hi)

        def send(time: int, after: list[int]) -> None:
            self.sent += 1
            message = Push(time, after, self._index, self.sent, lo, hi, hi - lo, None, slot, None)
            for server in servers:
                self._fabric.send(server, message)

        task.on_end(lambda: self._fabric.space.free(slot))
        self._outgoing.count((server, values.nbytes) for server in servers)
        return self._send(task, servers, send, after)

    def _refuse(self, bad: int, values: Array, keys: Any) -> None:
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise NonFiniteError(
            f'push to table "{self._spec.name}" refused: {bad:,} of {values.size:,} values are NaN or infinite, '
            f"the first at key {keys[row]}"
        )

    def _send(self, task: Task[None], servers: Iterable[int], send: SendIt, after: list[Task[Any]]) -> Task[None]:
        self._drop_finished()
        self._made.append(task)
        self._issued.issue(task, servers, send, after, lane=self._lane)
        return task

    # --- those under way --------------------------------------------------------------------------------------------

    def _drop_finished(self) -> None:
        while self._made and self._made[0].finished and self._made[0].error is None:
            self._made.popleft()

    def unfinished(self) -> list[Task[None]]:
        """Those that are not applied yet."""
        return [push for push in self._made if not push.finished]

    def older(self, delay: int | None) -> list[Task[None]]:
        """Those that a pull must come after: all but the newest `delay`, and those that failed."""
        self._drop_finished()
        surplus = 0 if delay is None else len(self._made) - delay
        return [self._made[i] for i in range(max(surplus, 0))]

    def settle(self) -> None:
        """Wait until all are applied; the error of one that failed is raised."""
        while self._made:
            self._made.popleft().wait()
