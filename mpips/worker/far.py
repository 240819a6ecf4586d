"""Reading the shards of servers on other nodes: a range by one-sided reads, a key list or a scan by an answer."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpips.fabric import Fabric
from mpips.kernels import header
from mpips.kernels.gather import scatter_rows
from mpips.messages import Pull, PullReply, PullScan, Taken
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.worker.keys import Keys

Array = np.ndarray[Any, Any]


class Far:
    """The servers of a table that this worker can't load from.

    Parameters
    ----------
    spec, index : the table and its number in the job.
    headers : arena offset of its first shard header, at every server.
    heads : server of each shard.
    fabric, issued : this worker's.
    """

    def __init__(
        self, spec: TableSpec, index: int, headers: int, heads: Sequence[int], fabric: Fabric, issued: Issued
    ) -> None:
        self._spec = spec
        self._index = index
        self._headers = headers
        self._heads = heads
        self._fabric = fabric
        self._issued = issued
        servers = sorted(set(heads))
        self._servers = {i: server for i, server in enumerate(servers) if fabric.place(server) is None}
        self._blocks: dict[int, int] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._servers)

    def among(self, keys: Keys) -> dict[int, tuple[int, int]]:
        """The servers elsewhere that have some of the keys, and where the group of each begins and ends."""
        bounds = keys.bounds
        return {server: (bounds[i], bounds[i + 1]) for i, server in self._servers.items() if bounds[i + 1] > bounds[i]}

    def pull_keys(
        self, task: Task[Any], keys: Keys, out: Array, after: Sequence[Task[Any]], finish: Callable[[], None]
    ) -> None:
        """Ask for the keys that are elsewhere, put their values into `out` (n, width), then call `finish`."""
        groups, n = self.among(keys), keys.array.size
        slot = self._issued.room(8 * n)
        task.on_end(lambda: self._fabric.space.free(slot))
        order = keys.order if keys.order.size else np.arange(n)
        np.take(keys.array, order, out=self._fabric.values(self._fabric.rank, slot, n, "uint64"), mode="clip")

        def send(time: int, after: list[int]) -> None:
            for server, (start, end) in groups.items():
                self._fabric.send(server, Pull(time, after, self._index, end - start, slot + 8 * start, None))

        def answered(source: int, reply: PullReply) -> None:
            start, end = groups[source]
            part = np.empty((end - start, self._spec.width), self._spec.dtype)

            def arrived() -> None:
                scatter_rows(part, order[start:end], out)
                self._take(task, source, finish)

            self._fabric.fetch(source, reply.values, part, arrived)

        self._issued.issue(task, groups, send, after, answered)

    def scan(
        self,
        task: Task[Any],
        lo: int,
        hi: int | None,
        found: list[tuple[Array, Array]],
        after: Sequence[Task[Any]],
        finish: Callable[[], None],
    ) -> None:
        """Ask all servers elsewhere for the keys in ``[lo, hi)`` that they have; add them to `found`, then `finish`."""

        def send(time: int, after: list[int]) -> None:
            for server in self._servers.values():
                self._fabric.send(server, PullScan(time, after, self._index, lo, hi))

        def answered(source: int, reply: PullReply) -> None:
            keys = np.empty(reply.count, np.uint64)
            values = np.empty((reply.count, self._spec.width), self._spec.dtype)

            def arrived() -> None:
                found.append((keys, values))
                self._take(task, source, finish)

            self._fabric.fetch(
                source, reply.keys, keys, lambda: self._fabric.fetch(source, reply.values, values, arrived)
            )

        self._issued.issue(task, self._servers.values(), send, after, answered)

    def _take(self, task: Task[Any], source: int, finish: Callable[[], None]) -> None:
        self._fabric.send(source, Taken(task.time))
        if self._issued.received(task, source):
            finish()

    def copy(self, shard: int, row: int, cells: Array, consistent: bool, then: Callable[[], None]) -> None:
        """Read values of a dense shard from one of its rows on, then call `then`.

        The shard's header tells its place, which stays; read at rest, it is read before and after.
        """
        head, at = self._heads[shard], self._headers + shard * header.BYTES
        words = np.empty(header.WORDS, np.int64)
        offset = row * self._spec.row_bytes

        def placed() -> None:
            self._blocks[shard] = header.block_of(int(words[header.LOCATION]))
            before = int(words[header.VERSION])

            def check() -> None:
                if before & 1 or int(words[header.VERSION]) != before:
                    self._fabric.fetch(head, at, words, placed)
                else:
                    then()

            after = (lambda: self._fabric.fetch(head, at, words, check)) if consistent else then
            self._fabric.fetch(head, self._blocks[shard] + offset, cells, after)

        if consistent or shard not in self._blocks:
            self._fabric.fetch(head, at, words, placed)
        else:
            self._fabric.fetch(head, self._blocks[shard] + offset, cells, then)
