"""A table as a worker sees it: push and pull of a key range or a sorted key list.

On the server's own node a pull is a load from its arena; from another node it is a one-sided read of a range, or an
answer that the server leaves in its arena. A push leaves keys and values in this worker's arena and names them in a
message.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.kernels import header, sparse
from mpips.kernels.gather import (
    check_keys,
    copy_finite,
    copy_finite_rows,
    gather_dense,
    gather_sparse,
    read_range,
    scatter_rows,
)
from mpips.kernels.partition import group
from mpips.messages import PullKeys, PullReply, PullScan, PullTaken, PushKeys, PushRange
from mpips.table import TableSpec
from mpips.worker.task import Task, Tasks

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
NO_ORDER = np.empty(0, np.int64)


class KeyRangeError(Error, KeyError):
    """Keys that are not sorted, not unique or out of the table's range."""

    __str__ = Exception.__str__


class ShapeError(Error, ValueError):
    """Values, or an array to read into, that do not have the shape that the keys ask for."""


class NonFiniteError(Error, ValueError):
    """NaN or infinite values in a push, which is refused as a whole."""


class Keys:
    """A sorted list of unique keys, checked and grouped by server once, for any number of pushes and pulls.

    Made by `Table.keys`; `array` (n,) uint64 holds the keys.
    """

    __slots__ = ("array", "bounds", "order")

    def __init__(self, array: Array, order: Array, bounds: list[int]) -> None:
        self.array = array
        self.order = order
        self.bounds = bounds


def _integers(keys: Any, table: str) -> Array:
    """A list as an array; NumPy alone would make floats of a list with small and very large integers."""
    listed = list(keys)
    wrong = [key for key in listed if not isinstance(key, int | np.integer) or not 0 <= key < 1 << 64]
    if wrong:
        raise KeyRangeError(f'table "{table}": keys must be integers from 0 to 2^64 - 1, got {wrong[0]!r}')
    return np.array(listed, np.uint64)


class Table:
    """Made by the worker for every table of the job.

    Parameters
    ----------
    spec : the table.
    index : its number in the job.
    headers : arena offset of its first shard header, at every server.
    heads : server of each shard.
    fabric, tasks : this worker's.
    delay : pushes of this worker that may be unacknowledged when it pulls; None: any number.
    """

    def __init__(
        self,
        spec: TableSpec,
        index: int,
        headers: int,
        heads: Sequence[int],
        fabric: Fabric,
        tasks: Tasks,
        delay: int | None = None,
    ) -> None:
        self.spec = spec
        self.delay = delay
        self._index = index
        self._fabric = fabric
        self._tasks = tasks
        self._heads = heads
        self._headers = headers
        self._itemsize, self._row_bytes = spec.itemsize, spec.row_bytes
        self._stride = sparse.row_words(spec.width, spec.slots, spec.itemsize)
        self._words = fabric.memory.view(np.int64)
        self._cells = fabric.memory.view(spec.dtype)
        self._own_cells = fabric.arena.view(spec.dtype)
        self._own_keys = fabric.arena.view(np.uint64)
        self._servers = sorted(set(heads))
        position = {server: i for i, server in enumerate(self._servers)}
        self._server_of = np.array([position[head] for head in heads], np.int64)
        self._places = np.full((spec.shards, 2), -1, np.int64)
        for shard, head in enumerate(heads):
            base = fabric.place(head)
            if base is not None:
                self._places[shard] = (base + headers) // 8 + shard * header.WORDS, base
        self._far = [server for server in self._servers if fabric.place(server) is None]
        self._blocks: dict[int, int] = {}
        self._pushes: deque[Task[None]] = deque()

    @property
    def name(self) -> str:
        """The table's name."""
        return self.spec.name

    # --- keys -------------------------------------------------------------------------------------------------------

    def keys(self, keys: Any) -> Keys:
        """Check a key list and find out who has which of them.

        Parameters
        ----------
        keys : (n,) integers, sorted, each once; rows of a dense table, any unsigned 64-bit key of a sparse one.

        Raises
        ------
        KeyRangeError
            when they are not sorted, not unique or not in the table.
        """
        spec = self.spec
        array = keys if isinstance(keys, np.ndarray) else _integers(keys, spec.name)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise KeyRangeError(
                f'table "{spec.name}": keys must be a list of integers, got {array.dtype} {array.shape}'
            )
        if array.dtype.kind == "i" and array.size and array.min() < 0:
            raise KeyRangeError(f'table "{spec.name}": key {array.min()} is negative')
        array = np.ascontiguousarray(array, np.uint64)
        wrong = check_keys(array, np.uint64(spec.rows if spec.kind == "dense" else 0))
        if wrong >= 0:
            key = array[wrong]
            if spec.kind == "dense" and key >= spec.rows:
                raise KeyRangeError(f'table "{spec.name}": key {key} is out of range [0, {spec.rows})')
            raise KeyRangeError(
                f'table "{spec.name}": keys must be sorted and unique, but {array[wrong - 1]} precedes {key}'
            )
        if len(self._servers) == 1 and spec.kind == "dense":
            return Keys(array, NO_ORDER, [0, array.size])
        order, bounds = group(array, spec.kind == "dense", spec.shard_bits, self._server_of, len(self._servers))
        return Keys(array, order, bounds.tolist())

    def _key_range(self, keys: range | slice) -> tuple[int, int | None]:
        end = self.spec.rows if self.spec.kind == "dense" else 1 << 64
        lo = 0 if keys.start is None else int(keys.start)
        hi = end if keys.stop is None else int(keys.stop)
        if keys.step not in (None, 1):
            raise KeyRangeError(f'table "{self.name}": a key range has no step, got {keys}')
        if not 0 <= lo <= hi <= end:
            raise KeyRangeError(f'table "{self.name}": range [{lo}, {hi}) is not within [0, {end})')
        return lo, None if hi == 1 << 64 else hi

    def _shape(self, n: int) -> Shape:
        return (n,) if self.spec.width == 1 else (n, self.spec.width)

    # --- push -------------------------------------------------------------------------------------------------------

    def push(self, keys: Any, values: Any, after: Iterable[Task[Any]] = ()) -> Task[None]:
        """Send updates, which the servers apply by the table's rule.

        The values are copied before this returns; the task is finished when every server has applied its part.

        Parameters
        ----------
        keys : ``range(lo, hi)`` or ``slice`` of a dense table's rows; or sorted unique keys (n,); or `Keys`.
        values : (n,) for width 1, else (n, width); converted to the table's dtype.
        after : tasks that must be finished before this one is sent.

        Raises
        ------
        KeyRangeError, ShapeError, NonFiniteError
            for wrong keys, values of another shape, or NaN or infinite ones; nothing is sent.
        """
        after = list(after)
        if isinstance(keys, range | slice):
            if self.spec.kind == "sparse":
                raise KeyRangeError(f'table "{self.name}" is sparse: push a key list')
            lo, hi = self._key_range(keys)
            assert hi is not None
            return self._push_range(lo, hi, self._rows(values, hi - lo), after)
        if not isinstance(keys, Keys):
            keys = self.keys(keys)
        return self._push_keys(keys, self._rows(values, keys.array.size), after)

    def _rows(self, values: Any, n: int) -> Array:
        rows: Array = np.ascontiguousarray(values, self.spec.dtype)
        if rows.shape not in (self._shape(n), (n, self.spec.width)):
            raise ShapeError(f'table "{self.name}": {n} keys need values of shape {self._shape(n)}, got {rows.shape}')
        return rows.reshape(n, self.spec.width)

    def _push_keys(self, keys: Keys, values: Array, after: list[Task[Any]]) -> Task[None]:
        spec, n = self.spec, keys.array.size
        task: Task[None] = Task(self._tasks, f'push of {n:,} keys to table "{self.name}"')
        if n == 0:
            task.finish(None)
            return task
        slot = self._tasks.room(n * (8 + self._row_bytes))
        at = slot + 8 * n
        own_keys = self._own_keys[slot >> 3 : (slot >> 3) + n]
        cells = self._own_cells[at // self._itemsize : at // self._itemsize + n * spec.width]
        if keys.order.size:
            np.take(keys.array, keys.order, out=own_keys)
            bad = copy_finite_rows(values, keys.order, cells.reshape(n, spec.width))
        else:
            own_keys[:] = keys.array
            bad = copy_finite(values.reshape(-1), cells)
        if bad:
            self._refuse(bad, values, keys.array, slot)
        bounds = keys.bounds

        def run() -> None:
            parts = [i for i in range(len(self._servers)) if bounds[i + 1] > bounds[i]]
            time = self._tasks.expect(task, [self._servers[i] for i in parts])
            for i in parts:
                start, count = bounds[i], bounds[i + 1] - bounds[i]
                message = PushKeys(self._index, time, count, slot + 8 * start, at + start * self._row_bytes)
                self._fabric.send(self._servers[i], message)

        return self._send(task, run, slot, after)

    def _push_range(self, lo: int, hi: int, values: Array, after: list[Task[Any]]) -> Task[None]:
        spec = self.spec
        task: Task[None] = Task(self._tasks, f'push of rows [{lo}, {hi}) to table "{self.name}"')
        if lo == hi:
            task.finish(None)
            return task
        slot = self._tasks.room((hi - lo) * self._row_bytes)
        start = slot // self._itemsize
        bad = copy_finite(values.reshape(-1), self._own_cells[start : start + values.size])
        if bad:
            self._refuse(bad, values, range(lo, hi), slot)
        servers = set(self._heads[lo >> spec.shard_bits : ((hi - 1) >> spec.shard_bits) + 1])

        def run() -> None:
            message = PushRange(self._index, self._tasks.expect(task, servers), lo, hi, slot)
            for server in sorted(servers):
                self._fabric.send(server, message)

        return self._send(task, run, slot, after)

    def _refuse(self, bad: int, values: Array, keys: Any, slot: int) -> None:
        self._fabric.space.free(slot)
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise NonFiniteError(
            f'push to table "{self.name}" refused: {bad:,} of {values.size:,} values are NaN or infinite, '
            f"the first at key {keys[row]}"
        )

    def _send(self, task: Task[None], run: Callable[[], None], slot: int, after: list[Task[Any]]) -> Task[None]:
        task.on_end(lambda: self._fabric.space.free(slot))
        self._pushes.append(task)
        self._tasks.start(task, run, after)
        return task

    def unfinished(self) -> list[Task[None]]:
        """The pushes of this worker that are not acknowledged yet."""
        return [push for push in self._pushes if not push.finished]

    def settle(self) -> None:
        """Wait until every push of this worker is acknowledged; the error of one that failed is raised."""
        while self._pushes:
            self._pushes.popleft().wait()

    def _older_pushes(self) -> list[Task[None]]:
        """The pushes that a pull must come after: all but the newest `delay`, and those that failed."""
        while self._pushes and self._pushes[0].finished and self._pushes[0].error is None:
            self._pushes.popleft()
        surplus = 0 if self.delay is None else len(self._pushes) - self.delay
        return [self._pushes[i] for i in range(max(surplus, 0))]

    # --- pull -------------------------------------------------------------------------------------------------------

    def pull(
        self, keys: Any, out: Array | None = None, after: Iterable[Task[Any]] = (), consistent: bool = False
    ) -> Task[Any]:
        """Read values.

        Parameters
        ----------
        keys : ``range(lo, hi)`` or ``slice``; or sorted unique keys (n,); or `Keys`.
        out : array of the result's shape and the table's dtype to read into; a new one by default.
        after : tasks that must be finished before this one reads.
        consistent : have every shard of a dense range read between two pushes, never in the midst of one.

        Returns
        -------
        Task
            whose result is values (n,) or (n, width); a range of a sparse table gives its keys and values,
            ``(keys (n,), values)``, sorted by key. Keys that were never pushed are zero.
        """
        before = [*after, *self._older_pushes()]
        if isinstance(keys, range | slice):
            lo, hi = self._key_range(keys)
            task: Task[Any] = Task(self._tasks, f'pull of range [{lo}, {hi}) from table "{self.name}"')
            if self.spec.kind == "sparse":
                self._tasks.start(task, lambda: self._scan(task, lo, hi), before)
                return task
            assert hi is not None
            rows, stop = self._result(hi - lo, out), hi
            self._tasks.start(task, lambda: self._pull_range(task, lo, stop, rows, consistent), before)
            return task
        if not isinstance(keys, Keys):
            keys = self.keys(keys)
        listed, rows = keys, self._result(keys.array.size, out)
        task = Task(self._tasks, f'pull of {rows.shape[0]:,} keys from table "{self.name}"')
        self._tasks.start(task, lambda: self._pull_keys(task, listed, rows), before)
        return task

    def _result(self, n: int, out: Array | None) -> Array:
        if out is None:
            return np.empty((n, self.spec.width), self.spec.dtype)
        if out.dtype != self.spec.dtype or out.size != n * self.spec.width or not out.flags.c_contiguous:
            raise ShapeError(
                f'table "{self.name}": out must be contiguous {self.spec.dtype} of shape {self._shape(n)}, '
                f"got {out.dtype} {out.shape}"
            )
        return out.reshape(n, self.spec.width)

    def _pull_keys(self, task: Task[Any], keys: Keys, out: Array) -> None:
        spec = self.spec
        if len(self._far) < len(self._servers):
            flat = out.reshape(-1)
            if spec.kind == "dense":
                gather_dense(self._words, self._cells, self._places, spec.shard_bits, spec.width, keys.array, flat)
            else:
                gather_sparse(
                    self._words, self._cells, self._places, spec.shard_bits, spec.width, self._stride, keys.array, flat
                )
        far = [
            i for i, server in enumerate(self._servers) if server in self._far and keys.bounds[i + 1] > keys.bounds[i]
        ]
        result = out.reshape(self._shape(out.shape[0]))
        if not far:
            task.finish(result)
            return
        n = keys.array.size
        slot = self._tasks.room(8 * n)
        task.on_end(lambda: self._fabric.space.free(slot))
        grouped = self._own_keys[slot >> 3 : (slot >> 3) + n]
        order = keys.order if keys.order.size else np.arange(n)
        np.take(keys.array, order, out=grouped)

        def answered(source: int, reply: PullReply) -> None:
            i = self._servers.index(source)
            start, end = keys.bounds[i], keys.bounds[i + 1]
            part = np.empty((end - start, spec.width), spec.dtype)

            def arrived() -> None:
                scatter_rows(part, order[start:end], out)
                self._fabric.send(source, PullTaken(task.time))
                if self._tasks.received(task, source):
                    task.finish(result)

            self._fabric.fetch(source, reply.values, part, arrived)

        time = self._tasks.expect(task, [self._servers[i] for i in far], answered)
        for i in far:
            start, end = keys.bounds[i], keys.bounds[i + 1]
            self._fabric.send(self._servers[i], PullKeys(self._index, time, end - start, slot + 8 * start))

    def _pull_range(self, task: Task[Any], lo: int, hi: int, out: Array, consistent: bool) -> None:
        spec = self.spec
        flat = out.reshape(-1)
        missing = 0
        shards = range(lo >> spec.shard_bits, ((hi - 1) >> spec.shard_bits) + 1) if hi > lo else range(0)
        parts = []
        for shard in shards:
            start, end = spec.shard_range(shard)
            a, b = max(lo, start), min(hi, end)
            parts.append((shard, a - start, flat[(a - lo) * spec.width : (b - lo) * spec.width]))
        for shard, row, cells in parts:
            head, base = self._places[shard]
            if head < 0:
                missing += 1
                continue
            where = int(self._words[head + header.LOCATION])
            first = (base + ((where >> 8) << 6)) // self._itemsize + row * spec.width
            if not consistent:
                cells[:] = self._cells[first : first + cells.size]
                continue
            self._fabric.wait(
                lambda head=head, first=first, cells=cells: bool(
                    read_range(self._words, head, self._cells, first, cells)
                ),  # type: ignore[misc]
                f'shard {shard} of table "{self.name}" to be at rest',
            )
        result = out.reshape(self._shape(out.shape[0]))
        if not missing:
            task.finish(result)
            return
        left = [missing]

        def one() -> None:
            left[0] -= 1
            if left[0] == 0:
                task.peers = set()
                task.finish(result)

        task.peers = {self._heads[shard] for shard, _, _ in parts if self._places[shard, 0] < 0}
        for shard, row, cells in parts:
            if self._places[shard, 0] < 0:
                self._read_far(shard, row, cells, consistent, one)

    def _read_far(self, shard: int, row: int, cells: Array, consistent: bool, then: Callable[[], None]) -> None:
        """Read a piece of a dense shard on another node; its header first, and once more afterwards when asked to
        be consistent.
        """
        head = self._heads[shard]
        at = self._headers + shard * header.BYTES
        words = np.empty(header.WORDS, np.int64)

        def placed() -> None:
            block = (int(words[header.LOCATION]) >> 8) << 6
            self._blocks[shard] = block
            before = int(words[header.VERSION])

            def check() -> None:
                if before & 1 or int(words[header.VERSION]) != before:
                    self._fabric.fetch(head, at, words, placed)
                else:
                    then()

            def copied() -> None:
                if consistent:
                    self._fabric.fetch(head, at, words, check)
                else:
                    then()

            self._fabric.fetch(head, block + row * self._row_bytes, cells, copied)

        if consistent or shard not in self._blocks:
            self._fabric.fetch(head, at, words, placed)
        else:
            self._fabric.fetch(head, self._blocks[shard] + row * self._row_bytes, cells, then)

    def _scan(self, task: Task[Any], lo: int, hi: int | None) -> None:
        spec = self.spec
        near = np.flatnonzero(self._places[:, 0] >= 0).tolist()
        found = [self._scan_near(shard, lo, hi) for shard in near]

        def finish() -> None:
            keys = np.concatenate([part[0] for part in found])
            values = np.concatenate([part[1] for part in found])
            order = np.argsort(keys)
            task.finish((keys[order], values[order].reshape(self._shape(keys.size))))

        if not self._far:
            finish()
            return

        def answered(source: int, reply: PullReply) -> None:
            keys = np.empty(reply.count, np.uint64)
            values = np.empty((reply.count, spec.width), spec.dtype)

            def arrived() -> None:
                found.append((keys, values))
                self._fabric.send(source, PullTaken(task.time))
                if self._tasks.received(task, source):
                    finish()

            self._fabric.fetch(
                source, reply.keys, keys, lambda: self._fabric.fetch(source, reply.values, values, arrived)
            )

        time = self._tasks.expect(task, self._far, answered)
        for server in self._far:
            self._fabric.send(server, PullScan(self._index, time, lo, hi))

    def _scan_near(self, shard: int, lo: int, hi: int | None) -> tuple[Array, Array]:
        spec = self.spec
        head, base = (int(word) for word in self._places[shard])
        no_state = np.empty((0, 0), spec.dtype)
        room = 0
        while True:
            where = int(self._words[head + header.LOCATION])
            room = max(room, int(self._words[head + header.COUNT]))
            keys = np.empty(room, np.uint64)
            values = np.empty((room, spec.width), spec.dtype)
            block = (base + ((where >> 8) << 6)) // 8
            n = sparse.scan(
                self._words, self._cells, block, where & 0xFF, self._stride,
                np.uint64(lo), np.uint64(hi or 0), hi is None, keys, values, no_state,
            )  # fmt: skip
            if n <= room and int(self._words[head + header.LOCATION]) == where:
                return keys[:n], values[:n]
            room = max(room, int(n))
