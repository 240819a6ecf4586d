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
from mpips.filters import Direction, Kkt
from mpips.functions import FunctionError, find, reduce_replies, unpack
from mpips.kernels.gather import copy_finite, copy_finite_rows
from mpips.messages import CallShards, Push, ShardsReply, Taken, Traffic
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.tasks.issued import SendIt
from mpips.tasks.lane import Lane
from mpips.worker.algebra import Algebra
from mpips.worker.far import Above, Far
from mpips.worker.keys import KeyRangeError, Keys, key_list, key_range
from mpips.worker.near import Near
from mpips.worker.outgoing import Outgoing

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class ShapeError(Error, ValueError):
    """Values, or an array to read into, that do not have the shape that the keys ask for."""


class NonFiniteError(Error, ValueError):
    """NaN or infinite values in a push, which is refused as a whole."""


class Table(Algebra):
    """Made by the worker for every table of the job.

    Parameters
    ----------
    spec : the table.
    index : its number in the job.
    headers : arena offset of its first shard header, at every server.
    heads : server of each shard.
    fabric, issued : this worker's.
    delay : pushes of this worker that may be unfinished when it pulls; None: any number. Of a table with `aggregate`,
        a push is finished when those of all workers are. It may change at any time.
    """

    def __init__(
        self,
        spec: TableSpec,
        index: int,
        headers: int,
        heads: Sequence[int],
        fabric: Fabric,
        issued: Issued,
        delay: int | None = None,
    ) -> None:
        self.spec = spec
        self.delay = delay
        self._index = index
        self._fabric = fabric
        self._issued = issued
        self._lane = Lane()
        self._steps = 0
        self._heads = heads
        self._push_bytes = spec.push_width * spec.itemsize
        self._servers = sorted(set(heads))
        position = {server: i for i, server in enumerate(self._servers)}
        self._server_of = np.array([position[head] for head in heads], np.int64)
        self._near = Near(spec, headers, heads, fabric)
        self._outgoing = Outgoing(spec, fabric, issued)
        self._far = Far(spec, index, headers, heads, fabric, issued, self._outgoing)
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

    def push(
        self, keys: Any, values: Any, after: Iterable[Task[Any]] = (), within: range | slice | None = None
    ) -> Task[None]:
        """Send updates, which the servers apply by the table's rule, in the order of this worker's pushes.

        The values are copied before this returns; the task is finished when every server has applied its part.

        Parameters
        ----------
        keys : ``range(lo, hi)`` or ``slice`` of a dense table's rows; or sorted unique keys (n,); or `Keys`.
        values : (n,) for width 1, else (n, width); converted to the table's dtype. A rule with several inputs takes
            (n, width·inputs), the inputs of a value side by side.
        after : tasks that must be finished before this one is applied.
        within : of a dense table, the rows that this push is about: its keys are among them, and its time is kept
            for them alone. Workers that push to an aggregating table push about the same rows in turn.

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
            rows = self._rows(values, hi - lo)
            if not self.spec.push_filters:
                return self._push_range(lo, hi, rows, after)
            keys, within = np.arange(lo, hi, dtype=np.uint64), range(lo, hi)
        if not isinstance(keys, Keys):
            keys = self.keys(keys)
        lo, hi = self._about(keys, within)
        rows = self._rows(values, keys.array.size)
        if self._outgoing.filters_pushes:
            return self._push_filtered(keys, rows, lo, hi, after)
        return self._push_keys(keys, rows, lo, hi, after)

    def _about(self, keys: Keys, within: range | slice | None) -> tuple[int, int]:
        """The positions that a push of a key list is about."""
        if within is None:
            return 0, self.spec.positions
        if self.spec.kind == "sparse":
            raise KeyRangeError(f'table "{self.name}" is sparse: its pushes are about all of it')
        lo, hi = key_range(self.spec, within)
        assert hi is not None
        if keys.array.size and not (lo <= int(keys.array[0]) and int(keys.array[-1]) < hi):
            raise KeyRangeError(
                f'table "{self.name}": keys {keys.array[0]}…{keys.array[-1]} are not within [{lo}, {hi})'
            )
        return lo, hi

    def _rows(self, values: Any, n: int) -> Array:
        width = self.spec.push_width
        rows: Array = np.ascontiguousarray(values, self.spec.dtype)
        if rows.shape != (n, width) and not (width == 1 and rows.shape == (n,)):
            shape = (n,) if width == 1 else (n, width)
            raise ShapeError(f'table "{self.name}": {n} keys need values of shape {shape}, got {rows.shape}')
        return rows.reshape(n, width)

    def _push_keys(self, keys: Keys, values: Array, lo: int, hi: int, after: list[Task[Any]]) -> Task[None]:
        spec, n = self.spec, keys.array.size
        task: Task[None] = Task(self._issued, f'push of {n:,} keys to table "{self.name}"')
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
            self._steps += 1
            for server, (start, end) in parts.items():
                own = slot + 8 * start, at + start * self._push_bytes
                self._fabric.send(server, Push(time, after, self._index, self._steps, lo, hi, end - start, *own, None))

        task.on_end(lambda: self._fabric.space.free(slot))
        return self._send(task, parts, send, after)

    def _parts(self, keys: Keys, lo: int, hi: int) -> dict[int, tuple[int, int]]:
        """The servers that a push of keys goes to, and where the group of each begins and ends.

        A table that aggregates has it sent to all servers of the range: they count who has pushed.
        """
        bounds = keys.bounds
        about = self._servers_of(lo, hi) if self.spec.aggregate else ()
        return {
            server: (bounds[i], bounds[i + 1])
            for i, server in enumerate(self._servers)
            if bounds[i + 1] > bounds[i] or server in about
        }

    def _push_filtered(self, keys: Keys, values: Array, lo: int, hi: int, after: list[Task[Any]]) -> Task[None]:
        """The same through the table's filters, which are one chain for each server."""
        task: Task[None] = Task(self._issued, f'push of {keys.array.size:,} keys to table "{self.name}"')
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
        if not self.spec.aggregate:
            laid = {server: packet for server, packet in laid.items() if packet.entries}
        if not laid:
            self._issued.when(task, lambda: task.finish(None), after)
            return task

        def send(time: int, after: list[int]) -> None:
            self._steps += 1
            for server, (at, middle, count, coded) in laid.items():
                message = Push(time, after, self._index, self._steps, lo, hi, count, at, middle, coded)
                self._fabric.send(server, message)

        return self._send(task, laid, send, after)

    def _push_range(self, lo: int, hi: int, values: Array, after: list[Task[Any]]) -> Task[None]:
        task: Task[None] = Task(self._issued, f'push of rows [{lo}, {hi}) to table "{self.name}"')
        if lo == hi:
            self._issued.when(task, lambda: task.finish(None), after)
            return task
        slot = self._issued.room(values.nbytes)
        cells = self._fabric.values(self._fabric.rank, slot, values.size, self.spec.dtype)
        bad = copy_finite(values.reshape(-1), cells)
        if bad:
            self._fabric.space.free(slot)
            self._refuse(bad, values, range(lo, hi))
        servers = self._servers_of(lo, hi)

        def send(time: int, after: list[int]) -> None:
            self._steps += 1
            message = Push(time, after, self._index, self._steps, lo, hi, hi - lo, None, slot, None)
            for server in servers:
                self._fabric.send(server, message)

        task.on_end(lambda: self._fabric.space.free(slot))
        self._outgoing.count((server, values.nbytes) for server in servers)
        return self._send(task, servers, send, after)

    def _servers_of(self, lo: int, hi: int) -> list[int]:
        """The servers that have any of the positions ``[lo, hi)``."""
        bits = self.spec.shard_bits if self.spec.kind == "dense" else 0
        return sorted(set(self._heads[lo >> bits : ((hi - 1) >> bits) + 1])) if hi > lo else []

    def _refuse(self, bad: int, values: Array, keys: Any) -> None:
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise NonFiniteError(
            f'push to table "{self.name}" refused: {bad:,} of {values.size:,} values are NaN or infinite, '
            f"the first at key {keys[row]}"
        )

    def _send(self, task: Task[None], servers: Iterable[int], send: SendIt, after: list[Task[Any]]) -> Task[None]:
        self._pushes.append(task)
        self._issued.issue(task, servers, send, after, lane=self._lane)
        return task

    def unfinished(self) -> list[Task[None]]:
        """The pushes of this worker that are not acknowledged yet."""
        return [push for push in self._pushes if not push.finished]

    @property
    def pushes(self) -> int:
        """How many pushes this worker has sent."""
        return self._steps

    @property
    def kkt(self) -> Kkt | None:
        """The KKT filter of the table's pushes, if it has one: an algorithm tells it what it need not push."""
        return self._outgoing.kkt

    def give_keys(self, server: int, direction: Direction, signature: int) -> Array:
        """The key list of a signature, for a server that has forgotten it."""
        return self._outgoing.chain(server, direction)["key_cache"].keys_of(signature)  # type: ignore[no-any-return]

    def traffic(self) -> Traffic:
        """What this worker has sent to servers on other nodes."""
        return self._outgoing.traffic()

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
        self,
        keys: Any,
        out: Array | None = None,
        after: Iterable[Task[Any]] = (),
        consistent: bool = False,
        above: tuple[int, float] | None = None,
    ) -> Task[Any]:
        """Read values.

        Parameters
        ----------
        keys : ``range(lo, hi)`` or ``slice``; or sorted unique keys (n,); or `Keys`.
        out : array of the result's shape and the table's dtype to read into; a new one by default.
        after : tasks that must be finished before this one reads.
        consistent : have every shard of a dense range read between two pushes, never in the midst of one.
        above : of a list of rows of a dense table, also say whether this slot of their update state is above this
            threshold.

        Returns
        -------
        Task
            whose result is values (n,) or (n, width); a range of a sparse table gives its keys and values,
            ``(keys (n,), values)``, sorted by key; `above` gives values and flags (n,) bool. Keys that were never
            pushed are zero.
        """
        before = [*after, *self._older_pushes()]
        if isinstance(keys, range | slice):
            lo, hi = key_range(self.spec, keys)
            task: Task[Any] = Task(self._issued, f'pull of range [{lo}, {hi}) from table "{self.name}"')
            if self.spec.kind == "sparse":
                self._when_local(task, bool(self._near.shards), lambda after: self._scan(task, lo, hi, after), before)
                return task
            assert hi is not None
            rows, stop = self._result(hi - lo, out), hi
            self._issued.when(task, lambda: self._pull_range(task, lo, stop, rows, consistent), before)
            return task
        if not isinstance(keys, Keys):
            keys = self.keys(keys)
        listed, rows = keys, self._result(keys.array.size, out)
        asked = self._asked(above, rows.shape[0])
        task = Task(self._issued, f'pull of {rows.shape[0]:,} keys from table "{self.name}"')
        local = bool(self._near.shards) or not (self._far and self._far.among(keys))
        self._when_local(task, local, lambda after: self._pull_keys(task, listed, rows, asked, after), before)
        return task

    def _when_local(
        self, task: Task[Any], local: bool, pull: Callable[[list[Task[Any]]], None], before: list[Task[Any]]
    ) -> None:
        """Begin a pull: what loads from this node waits for the tasks before it; else the servers see to that."""
        if local:
            self._issued.when(task, lambda: pull([]), before)
        else:
            pull(before)

    def _result(self, n: int, out: Array | None) -> Array:
        if out is None:
            return np.empty((n, self.spec.width), self.spec.dtype)
        if out.dtype != self.spec.dtype or out.size != n * self.spec.width or not out.flags.c_contiguous:
            raise ShapeError(
                f'table "{self.name}": out must be contiguous {self.spec.dtype} of shape {self._shape(n)}, '
                f"got {out.dtype} {out.shape}"
            )
        return out.reshape(n, self.spec.width)

    def _asked(self, above: tuple[int, float] | None, n: int) -> Above | None:
        if above is None:
            return None
        if self.spec.kind != "dense" or not 0 <= above[0] < self.spec.slots:
            raise ValueError(f'table "{self.name}" has no slot {above[0]} of update state to compare')
        return Above(*above, np.zeros(n, np.bool_))

    def _pull_keys(self, task: Task[Any], keys: Keys, out: Array, above: Above | None, after: list[Task[Any]]) -> None:
        if self._near.shards:
            self._near.gather(keys.array, out.reshape(-1))
            if above is not None:
                self._near.above(keys.array, *above)

        def finish() -> None:
            values = out.reshape(self._shape(out.shape[0]))
            task.finish(values if above is None else (values, above.out))

        if self._far and self._far.among(keys):
            self._far.pull_keys(task, keys, out, after, finish, above)
        else:
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

    # --- functions on the servers -----------------------------------------------------------------------------------

    def call(
        self,
        function: str,
        keys: range | slice = slice(None),
        argument: Iterable[float] = (),
        after: Iterable[Task[Any]] = (),
    ) -> Task[Any]:
        """Run a shard function, built in or registered by `mpips.shard_function`, where the shards are.

        Parameters
        ----------
        function : its name; see `mpips.functions`.
        keys : the key range that it is run on.
        argument : numbers for the function.
        after : tasks that must be done before.

        Returns
        -------
        Task
            whose result is the replies of all shards, reduced to one as the function says.

        Raises
        ------
        KeyRangeError
            when the range is not within the table.
        FunctionError
            when there is no such function.
        """
        find(function)
        lo, hi = key_range(self.spec, keys)
        numbers = [float(number) for number in argument]
        task: Task[Any] = Task(self._issued, f'function "{function}" on [{lo}, {hi}) of table "{self.name}"')
        dense = self.spec.kind == "dense" and hi is not None
        servers = (dense and self._servers_of(lo, hi or 0)) or self._servers
        replies: dict[int, Any] = {}

        def send(time: int, after: list[int]) -> None:
            message = CallShards(time, after, self._index, function, lo, hi, numbers)
            for server in servers:
                self._fabric.send(server, message)

        def answered(source: int, reply: ShardsReply) -> None:
            data = np.empty(reply.size, np.uint8)

            def arrived() -> None:
                replies[source] = unpack(data, reply.dtype, reply.shape)
                self._fabric.send(source, Taken(task.time))
                if self._issued.received(task, source):
                    self._reduce(task, function, [replies[server] for server in servers if server in replies], numbers)

            self._fabric.fetch(source, reply.offset, data, arrived)

        self._issued.issue(task, servers, send, after, answered)
        return task

    def _reduce(self, task: Task[Any], function: str, replies: list[Any], argument: list[float]) -> None:
        try:
            result = reduce_replies(function, replies, argument) if replies else None
        except FunctionError as error:
            task.finish(None, error)
        else:
            task.finish(result)

    def _copy_at_rest(self, shard: int, row: int, cells: Array) -> None:
        what = f'shard {shard} of table "{self.name}" to be at rest'
        self._fabric.wait(lambda: self._near.copy_at_rest(shard, row, cells), what)

    def _scan(self, task: Task[Any], lo: int, hi: int | None, after: list[Task[Any]]) -> None:
        found = [self._near.scan(shard, lo, hi) for shard in sorted(self._near.shards)]

        def finish() -> None:
            keys = np.concatenate([part[0] for part in found])
            values = np.concatenate([part[1] for part in found])
            order = np.argsort(keys)
            task.finish((keys[order], values[order].reshape(self._shape(keys.size))))

        if self._far:
            self._far.scan(task, lo, hi, found, after, finish)
        else:
            finish()
