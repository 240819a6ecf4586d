"""A table as a worker sees it: push and pull of a key range or a sorted key list.

On the server's own node a pull is a load from its arena; from another node it is a one-sided read of a range, or an
answer that the server leaves in its arena. A push leaves keys and values in this worker's arena and names them in a
message.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from mpips.fabric import Fabric
from mpips.filters import Direction, Kkt
from mpips.functions import FunctionError, find, reduce_replies, unpack
from mpips.messages import CallShards, ShardsReply, Taken, Traffic
from mpips.scheduler.chains import chains_of
from mpips.scheduler.view import View
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.worker.algebra import Algebra
from mpips.worker.far import Above, Far
from mpips.worker.keys import Keys, Placement, key_range
from mpips.worker.near import Near
from mpips.worker.outgoing import Outgoing
from mpips.worker.pushes import Pushes, ShapeError
from mpips.worker.sending import Calling
from mpips.worker.steps import Steps

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class Reads:
    """One-sided reads into one array: those begun before a view may come after it.

    Attributes
    ----------
    again : whether all is to be read again when they have come.
    """

    def __init__(self) -> None:
        self.again = False
        self._open: dict[int, int] = {}

    def begin(self, servers: Iterable[int]) -> None:
        """Reads from these servers, one for each, begin."""
        for server in servers:
            self._open[server] = self._open.get(server, 0) + 1

    def done(self, server: int) -> bool:
        """One has come; whether it was the last."""
        if server not in self._open:  # it was dead
            return False
        self._open[server] -= 1
        if not self._open[server]:
            del self._open[server]
        return not self._open

    def under_way(self, lost: set[int]) -> set[int]:
        """The servers from which any will come: not those that are dead."""
        self._open = {server: count for server, count in self._open.items() if server not in lost}
        return set(self._open)


class Table(Algebra):
    """Made by the worker for every table of the job.

    Parameters
    ----------
    spec : the table.
    index : its number in the job.
    headers : arena offset of its first shard header, at every server.
    view : which says which server has which shard.
    fabric, issued : this worker's.
    identity : whose pushes those between batches are.
    resumed : called with the number of a view when the first push that was sent again for it is acknowledged.
    delay : pushes of this worker that may be unfinished when it pulls; None: any number. Of a table with `aggregate`,
        a push is finished when those of all workers are. It may change at any time.
    """

    def __init__(
        self,
        spec: TableSpec,
        index: int,
        headers: int,
        view: View,
        fabric: Fabric,
        issued: Issued,
        identity: int,
        resumed: Callable[[int], None],
        delay: int | None = None,
    ) -> None:
        self.spec = spec
        self.delay = delay
        self._index = index
        self._headers = headers
        self._fabric = fabric
        self._issued = issued
        self._placement = Placement(spec, view.number, chains_of(view, spec).heads.tolist())
        self._near = Near(spec, headers, self._placement.heads, fabric)
        self._outgoing = Outgoing(spec, fabric, issued)
        self._steps = Steps(identity)
        self._pushes = Pushes(spec, index, self._placement, fabric, issued, self._outgoing, self._steps, resumed)
        self._far = Far(spec, index, headers, self._placement, fabric, issued, self._outgoing, self._pushes.lane)
        self._lost = set(view.lost)
        self._answering: dict[
            Task[Any], Callable[[], None]
        ] = {}  # what servers were asked to answer, and asking it again

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
        return self._placement.keys(keys)

    def viewed(self, view: View) -> None:
        """Take another view: what servers have not done or answered that have other shards now, or are dead, is asked
        again.
        """
        placement = Placement(self.spec, view.number, chains_of(view, self.spec).heads.tolist())
        changed = placement.changed_from(self._placement)
        self._lost = set(view.lost)
        if changed:
            self._placement = placement
            self._near = Near(self.spec, self._headers, placement.heads, self._fabric)
            self._far.viewed(placement)
            self._pushes.viewed(placement, changed)
        for task, ask in list(self._answering.items()):
            if task.finished:
                del self._answering[task]
            elif task.peers & (changed | self._lost):
                self._issued.withdraw(task)
                ask()

    def _ask(self, task: Task[Any], ask: Callable[[], None]) -> None:
        """Begin what servers are to answer, in a way that can be repeated."""
        self._answering[task] = ask
        task.on_end(lambda: self._drop(task))
        ask()

    def _drop(self, task: Task[Any]) -> None:
        self._answering.pop(task, None)

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
        after : tasks that must be finished before this one is applied; where every server of this push was asked to do
            them, too, each waits for its own part of them.
        within : of a dense table, the rows that this push is about: its keys are among them, and its time is kept
            for them alone. Workers that push to an aggregating table push about the same rows in turn.

        Raises
        ------
        KeyRangeError, ShapeError, NonFiniteError
            for wrong keys, values of another shape, or NaN or infinite ones; nothing is sent.
        """
        return self._pushes.push(keys, values, self._issued.known(after), within)

    def begin_batch(self, identity: int, counter: int) -> None:
        """What is pushed from now on belongs to the batch of this number of all that this identity was given."""
        self._steps.begin_batch(identity, counter)

    def end_batch(self) -> None:
        """What is pushed from now on belongs to no batch."""
        self._steps.end_batch()

    def pass_by(self, identity: int, counter: int) -> None:
        """The batches up to this one of an identity are over, whoever did them."""
        self._steps.pass_by(identity, counter)

    def unfinished(self) -> list[Task[None]]:
        """The pushes of this worker that are not acknowledged yet."""
        return self._pushes.unfinished()

    def settle(self) -> None:
        """Wait until every push of this worker is acknowledged; the error of one that failed is raised."""
        self._pushes.settle()

    @property
    def pushes(self) -> int:
        """How many pushes this worker has sent."""
        return self._pushes.sent

    # --- filters ----------------------------------------------------------------------------------------------------

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
        before = [*self._issued.known(after), *self._pushes.older(self.delay)]
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
        def finish() -> None:
            values = out.reshape(self._shape(out.shape[0]))
            task.finish(values if above is None else (values, above.out))

        def gather() -> bool:
            if self._near.shards:
                self._near.gather(keys.array, out.reshape(-1))
                if above is not None:
                    self._near.above(keys.array, *above)
            return bool(self._far and self._far.among(self.keys(keys)))

        def begin(after: list[Task[Any]]) -> None:
            if gather():
                self._far.pull_keys(task, keys, out, after, finish, ask, above)
            else:
                finish()

        def ask() -> None:
            self._in_order(task, begin, after)

        if self._far and self._far.among(self.keys(keys)):
            self._ask(task, ask)
        else:
            gather()
            finish()

    def _in_order(self, task: Task[Any], begin: Callable[[list[Task[Any]]], None], after: list[Task[Any]]) -> None:
        """Begin a pull that left it to the servers to come after other tasks; since it was issued some of its shards
        may have come to this node, where nobody else sees to that.
        """
        if after and self._near.shards:
            self._issued.when(task, lambda: begin([]), after)
        else:
            begin(after)

    def _pull_range(self, task: Task[Any], lo: int, hi: int, out: Array, consistent: bool) -> None:
        reads = Reads()
        if self._far:
            self._ask(task, lambda: self._read_range(task, lo, hi, out, consistent, reads))
        else:
            self._read_range(task, lo, hi, out, consistent, reads)

    def _read_range(self, task: Task[Any], lo: int, hi: int, out: Array, consistent: bool, reads: Reads) -> None:
        """Read the rows into `out`, once what is being read of it for views before has come."""
        task.peers = reads.under_way(self._lost)
        if task.peers:
            reads.again = True
            return
        bits, width, flat = self.spec.shard_bits, self.spec.width, out.reshape(-1)
        far = []
        for shard in range(lo >> bits, ((hi - 1) >> bits) + 1) if hi > lo else ():
            start = shard << bits
            a, b = max(lo, start), min(hi, start + (1 << bits))
            cells = flat[(a - lo) * width : (b - lo) * width]
            if consistent and shard in self._near.shards:
                self._copy_at_rest(shard, a - start, cells)
            elif shard in self._near.shards:
                cells[:] = self._near.values(shard)[(a - start) * width : (b - start) * width]
            if shard not in self._near.shards:
                far.append((shard, a - start, cells))

        def one(head: int) -> None:
            if not reads.done(head):
                return
            if reads.again:
                reads.again = False
                self._read_range(task, lo, hi, out, consistent, reads)
            else:
                task.finish(out.reshape(self._shape(out.shape[0])))

        if not far:
            task.finish(out.reshape(self._shape(out.shape[0])))
        heads = [int(self._placement.heads[shard]) for shard, _, _ in far]
        reads.begin(heads)
        task.peers = set(heads)
        for head, (shard, row, cells) in zip(heads, far, strict=True):
            self._far.copy(shard, row, cells, consistent, partial(one, head))

    # --- functions on the servers -----------------------------------------------------------------------------------

    def call(
        self,
        function: str,
        keys: range | slice = slice(None),
        argument: Any = (),
        after: Iterable[Task[Any]] = (),
    ) -> Task[Any]:
        """Run a shard function, built in or registered by `mpips.shard_function`, where the shards are.

        Parameters
        ----------
        function : its name; see `mpips.functions`.
        keys : the key range that it is run on.
        argument : numbers for the function, (m,); of one that is `by_row` as many as the range has values.
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
        ShapeError
            when the argument has too few or too many numbers.
        """
        before = self._issued.known(after)
        lo, hi = key_range(self.spec, keys)
        numbers = np.ascontiguousarray(argument, np.float64).reshape(-1)
        if find(function).by_row and (hi is None or numbers.size != (hi - lo) * self.spec.width):
            size = "a dense table" if hi is None else f"{(hi - lo) * self.spec.width} numbers"
            raise ShapeError(f'function "{function}" on table "{self.name}": its argument needs {size}')
        slot = self._issued.room(numbers.nbytes)
        self._fabric.values(self._fabric.rank, slot, numbers.size, "float64")[:] = numbers
        task: Task[Any] = Task(self._issued, f'function "{function}" on [{lo}, {hi}) of table "{self.name}"')
        task.on_end(lambda: self._fabric.space.free(slot))
        if find(function).writes:
            self._pushes.call(
                task, Calling(function, lo, hi), slot, numbers, before,
                lambda replies: self._reduce(task, function, replies, numbers),
            )  # fmt: skip
        else:
            self._ask(task, lambda: self._ask_servers(task, function, (lo, hi), (slot, numbers), before))
        return task

    def _ask_servers(
        self,
        task: Task[Any],
        function: str,
        keys: tuple[int, int | None],
        argument: tuple[int, Array],
        before: Iterable[Task[Any]],
    ) -> None:
        """Have all servers of a key range run a function; its argument lies in a slot of the arena."""
        (lo, hi), (slot, numbers) = keys, argument
        placement, replies = self._placement, dict[int, Any]()
        dense = self.spec.kind == "dense" and hi is not None
        servers = (dense and placement.servers_of(lo, hi or 0)) or placement.servers

        def send(time: int, after: list[int]) -> None:
            if placement is not self._placement:
                self._issued.withdraw(task, asked=False)
                self._answering[task]()
                return
            message = CallShards(
                time, after, placement.view, 0, self._index, 0, 0, function, lo, hi, slot, numbers.size
            )
            for server in servers:
                self._fabric.send(server, message)

        def answered(source: int, reply: ShardsReply) -> None:
            data = np.empty(reply.size, np.uint8)

            def arrived() -> None:
                self._fabric.send(source, Taken(reply.time))
                if task.time != reply.time:  # it was asked again meanwhile
                    return
                replies[source] = unpack(data, reply.dtype, reply.shape)
                if self._issued.received(task, source):
                    self._reduce(task, function, [replies[server] for server in servers if server in replies], numbers)

            self._fabric.fetch(source, reply.offset, data, arrived)

        self._issued.issue(task, servers, send, before, answered, self._pushes.lane, queued=False)

    def _reduce(self, task: Task[Any], function: str, replies: list[Any], argument: Array) -> None:
        try:
            result = reduce_replies(function, replies, argument) if replies else None
        except FunctionError as error:
            task.finish(None, error)
        else:
            task.finish(result)

    def _copy_at_rest(self, shard: int, row: int, cells: Array) -> None:
        """Copy values of a shard on this node, unless another node has it before they are at rest."""
        what = f'shard {shard} of table "{self.name}" to be at rest'
        self._fabric.wait(lambda: shard not in self._near.shards or self._near.copy_at_rest(shard, row, cells), what)

    def _scan(self, task: Task[Any], lo: int, hi: int | None, after: list[Task[Any]]) -> None:
        def begin(after: list[Task[Any]]) -> None:
            self._scan_all(task, lo, hi, after)

        if self._far:
            self._ask(task, lambda: self._in_order(task, begin, after))
        else:
            begin(after)

    def _scan_all(self, task: Task[Any], lo: int, hi: int | None, after: list[Task[Any]]) -> None:
        found = [self._near.scan(shard, lo, hi) for shard in sorted(self._near.shards)]

        def finish() -> None:
            keys = np.concatenate([part[0] for part in found])
            values = np.concatenate([part[1] for part in found])
            order = np.argsort(keys)
            task.finish((keys[order], values[order].reshape(self._shape(keys.size))))

        if self._far:
            self._far.scan(task, lo, hi, found, after, finish, lambda: self._scan_all(task, lo, hi, after))
        else:
            finish()
