"""The pulls of one worker from one table: loaded on this node, read one-sidedly or asked for elsewhere.

What has not come when a view gives shards to other servers is read, or asked for, again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mpips.fabric import Fabric
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.worker.asked import Asked
from mpips.worker.far import Above, Far
from mpips.worker.keys import Keys, Placement, ShapeError, key_range
from mpips.worker.near import Near
from mpips.worker.reads import Reads

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class Pulls:
    """One for each table of a worker.

    Parameters
    ----------
    spec : the table.
    headers : arena offset of its first shard header, at every server.
    placement : which server has which of its shards.
    fabric, issued, asked : this worker's.
    far : the servers on other nodes.
    """

    def __init__(
        self,
        spec: TableSpec,
        headers: int,
        placement: Placement,
        fabric: Fabric,
        issued: Issued,
        asked: Asked,
        far: Far,
    ) -> None:
        self._spec = spec
        self._headers = headers
        self._placement = placement
        self._fabric = fabric
        self._issued = issued
        self._asked = asked
        self._near = Near(spec, headers, placement.heads, fabric)
        self._far = far

    def viewed(self, placement: Placement) -> None:
        """Take another placement."""
        self._placement = placement
        self._near = Near(self._spec, self._headers, placement.heads, self._fabric)
        self._far.viewed(placement)

    def pull(
        self,
        keys: Any,
        out: Array | None,
        before: list[Task[Any]],
        consistent: bool,
        above: tuple[int, float] | None,
    ) -> Task[Any]:
        """As `Table.pull`, after the tasks `before`."""
        if isinstance(keys, range | slice):
            lo, hi = key_range(self._spec, keys)
            task: Task[Any] = Task(self._issued, f'pull of range [{lo}, {hi}) from table "{self._spec.name}"')
            if self._spec.kind == "sparse":
                self._when_local(task, bool(self._near.shards), lambda after: self._scan(task, lo, hi, after), before)
                return task
            assert hi is not None
            rows, stop = self._result(hi - lo, out), hi
            self._issued.when(task, lambda: self._pull_range(task, lo, stop, rows, consistent), before)
            return task
        keys = self._placement.keys(keys)
        listed, rows = keys, self._result(keys.array.size, out)
        asked = self._flags(above, rows.shape[0])
        task = Task(self._issued, f'pull of {rows.shape[0]:,} keys from table "{self._spec.name}"')
        local = bool(self._near.shards) or not (self._far and self._far.among(keys))
        self._when_local(task, local, lambda after: self._pull_keys(task, listed, rows, asked, after), before)
        return task

    def _shape(self, n: int) -> Shape:
        return (n,) if self._spec.width == 1 else (n, self._spec.width)

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
            return np.empty((n, self._spec.width), self._spec.dtype)
        if out.dtype != self._spec.dtype or out.size != n * self._spec.width or not out.flags.c_contiguous:
            raise ShapeError(
                f'table "{self._spec.name}": out must be contiguous {self._spec.dtype} of shape {self._shape(n)}, '
                f"got {out.dtype} {out.shape}"
            )
        return out.reshape(n, self._spec.width)

    def _flags(self, above: tuple[int, float] | None, n: int) -> Above | None:
        if above is None:
            return None
        if self._spec.kind != "dense" or not 0 <= above[0] < self._spec.slots:
            raise ValueError(f'table "{self._spec.name}" has no slot {above[0]} of update state to compare')
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
            return bool(self._far and self._far.among(self._placement.keys(keys)))

        def begin(after: list[Task[Any]]) -> None:
            if gather():
                self._far.pull_keys(task, keys, out, after, finish, ask, above)
            else:
                finish()

        def ask() -> None:
            self._in_order(task, begin, after)

        if self._far and self._far.among(self._placement.keys(keys)):
            self._asked.ask(task, ask)
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
            self._asked.ask(task, lambda: self._read_range(task, lo, hi, out, consistent, reads))
        else:
            self._read_range(task, lo, hi, out, consistent, reads)

    def _read_range(self, task: Task[Any], lo: int, hi: int, out: Array, consistent: bool, reads: Reads) -> None:
        """Read the rows into `out`, once what is being read of it for views before has come."""
        task.peers = reads.under_way(self._asked.lost)
        if task.peers:
            reads.again = True
            return
        bits, width, flat = self._spec.shard_bits, self._spec.width, out.reshape(-1)
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

    def _copy_at_rest(self, shard: int, row: int, cells: Array) -> None:
        """Copy values of a shard on this node, unless another node has it before they are at rest."""
        what = f'shard {shard} of table "{self._spec.name}" to be at rest'
        self._fabric.wait(lambda: shard not in self._near.shards or self._near.copy_at_rest(shard, row, cells), what)

    def _scan(self, task: Task[Any], lo: int, hi: int | None, after: list[Task[Any]]) -> None:
        def begin(after: list[Task[Any]]) -> None:
            self._scan_all(task, lo, hi, after)

        if self._far:
            self._asked.ask(task, lambda: self._in_order(task, begin, after))
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
