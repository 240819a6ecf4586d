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
from mpips.kernels.gather import copy_finite, copy_finite_rows
from mpips.messages import PushKeys, PushRange
from mpips.table import TableSpec
from mpips.worker.far import Far
from mpips.worker.keys import KeyRangeError, Keys, key_list, key_range
from mpips.worker.near import Near
from mpips.worker.task import Task, Tasks

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class ShapeError(Error, ValueError):
    """Values, or an array to read into, that do not have the shape that the keys ask for."""


class NonFiniteError(Error, ValueError):
    """NaN or infinite values in a push, which is refused as a whole."""


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
        self._row_bytes = spec.row_bytes
        self._servers = sorted(set(heads))
        position = {server: i for i, server in enumerate(self._servers)}
        self._server_of = np.array([position[head] for head in heads], np.int64)
        self._near = Near(spec, headers, heads, fabric)
        self._far = Far(spec, index, headers, heads, fabric, tasks)
        self._pushes: deque[Task[None]] = deque()

    @property
    def name(self) -> str:
        """The table's name."""
        return self.spec.name

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
        return key_list(self.spec, keys, self._server_of, len(self._servers))

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
            lo, hi = key_range(self.spec, keys)
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
        own_keys = self._fabric.values(self._fabric.rank, slot, n, "uint64")
        cells = self._fabric.values(self._fabric.rank, at, n * spec.width, spec.dtype)
        if keys.order.size:
            np.take(keys.array, keys.order, out=own_keys, mode="clip")  # "raise" would buffer
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
        bad = copy_finite(values.reshape(-1), self._fabric.values(self._fabric.rank, slot, values.size, spec.dtype))
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
            lo, hi = key_range(self.spec, keys)
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
        if self._near.shards:
            self._near.gather(keys.array, out.reshape(-1))

        def finish() -> None:
            task.finish(out.reshape(self._shape(out.shape[0])))

        if not (self._far and self._far.pull_keys(task, keys, out, finish)):
            finish()

    def _pull_range(self, task: Task[Any], lo: int, hi: int, out: Array, consistent: bool) -> None:
        bits, width, flat = self.spec.shard_bits, self.spec.width, out.reshape(-1)
        far = []
        for shard in range(lo >> bits, ((hi - 1) >> bits) + 1) if hi > lo else ():
            start = shard << bits
            a, b = max(lo, start), min(hi, start + (1 << bits))
            cells = flat[(a - lo) * width : (b - lo) * width]
            if shard not in self._near.shards:
                far.append((shard, a - start, cells))
            elif consistent:
                self._copy_at_rest(shard, a - start, cells)
            else:
                cells[:] = self._near.values(shard)[(a - start) * width : (b - start) * width]
        left = [len(far)]

        def one() -> None:
            left[0] -= 1
            if left[0] <= 0:
                task.peers = set()
                task.finish(out.reshape(self._shape(out.shape[0])))

        if not far:
            one()
        task.peers = {self._heads[shard] for shard, _, _ in far}
        for shard, row, cells in far:
            self._far.copy(shard, row, cells, consistent, one)

    def _copy_at_rest(self, shard: int, row: int, cells: Array) -> None:
        what = f'shard {shard} of table "{self.name}" to be at rest'
        self._fabric.wait(lambda: self._near.copy_at_rest(shard, row, cells), what)

    def _scan(self, task: Task[Any], lo: int, hi: int | None) -> None:
        found = [self._near.scan(shard, lo, hi) for shard in sorted(self._near.shards)]

        def finish() -> None:
            keys = np.concatenate([part[0] for part in found])
            values = np.concatenate([part[1] for part in found])
            order = np.argsort(keys)
            task.finish((keys[order], values[order].reshape(self._shape(keys.size))))

        if self._far:
            self._far.scan(task, lo, hi, found, finish)
        else:
            finish()
