"""Shard functions that a worker has run on the servers of one table; their replies are reduced to one."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from mpips.fabric import Fabric
from mpips.functions import FunctionError, find, reduce_replies, unpack
from mpips.messages import CallShards, ShardsReply, Taken
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.worker.asked import Asked
from mpips.worker.keys import Placement, ShapeError, key_range
from mpips.worker.pushes import Pushes
from mpips.worker.sending import Calling

Array = np.ndarray[Any, Any]


class Calls:
    """One for each table of a worker.

    Parameters
    ----------
    spec, index : the table and its number in the job.
    placement : which server has which of its shards.
    fabric, issued, asked : this worker's.
    pushes : to the table: a function that writes goes the same way.
    """

    def __init__(
        self,
        spec: TableSpec,
        index: int,
        placement: Placement,
        fabric: Fabric,
        issued: Issued,
        asked: Asked,
        pushes: Pushes,
    ) -> None:
        self._spec = spec
        self._index = index
        self._placement = placement
        self._fabric = fabric
        self._issued = issued
        self._asked = asked
        self._pushes = pushes

    def viewed(self, placement: Placement) -> None:
        """Take another placement."""
        self._placement = placement

    def call(self, function: str, keys: range | slice, argument: Any, before: list[Task[Any]]) -> Task[Any]:
        """As `Table.call`, after the tasks `before`."""
        lo, hi = key_range(self._spec, keys)
        numbers = np.ascontiguousarray(argument, np.float64).reshape(-1)
        if find(function).by_row and (hi is None or numbers.size != (hi - lo) * self._spec.width):
            size = "a dense table" if hi is None else f"{(hi - lo) * self._spec.width} numbers"
            raise ShapeError(f'function "{function}" on table "{self._spec.name}": its argument needs {size}')
        slot = self._issued.room(numbers.nbytes)
        self._fabric.values(self._fabric.rank, slot, numbers.size, "float64")[:] = numbers
        task: Task[Any] = Task(self._issued, f'function "{function}" on [{lo}, {hi}) of table "{self._spec.name}"')
        task.on_end(lambda: self._fabric.space.free(slot))
        if find(function).writes:
            self._pushes.call(
                task, Calling(function, lo, hi), slot, numbers, before,
                lambda replies: self._reduce(task, function, replies, numbers),
            )  # fmt: skip
        else:
            self._asked.ask(task, lambda: self._ask_servers(task, function, (lo, hi), (slot, numbers), before))
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
        dense = self._spec.kind == "dense" and hi is not None
        servers = (dense and placement.servers_of(lo, hi or 0)) or placement.servers

        def send(time: int, after: list[int]) -> None:
            if placement is not self._placement:
                self._asked.again(task)
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
