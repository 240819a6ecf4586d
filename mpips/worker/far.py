"""Reading the shards of servers on other nodes: a range by one-sided reads, a key list or a scan by an answer."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.kernels import header
from mpips.kernels.gather import scatter_rows
from mpips.messages import Pull, PullReply, PullScan, Taken
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.tasks.lane import Lane
from mpips.worker.keys import Keys, Placement
from mpips.worker.outgoing import Outgoing

Array = np.ndarray[Any, Any]
NO_VALUES = np.empty(0, np.uint8)


class Above(NamedTuple):
    """A question that goes with a pull of rows: is this slot of their state above this threshold? Into `out` (n,)."""

    slot: int
    threshold: float
    out: Array


class Far:
    """The servers of a table that this worker can't load from.

    Parameters
    ----------
    spec, index : the table and its number in the job.
    headers : arena offset of its first shard header, at every server.
    placement : which server has which shard.
    fabric, issued : this worker's.
    outgoing : what this worker sends to the table's servers.
    lane : of its pushes to them.
    """

    def __init__(
        self,
        spec: TableSpec,
        index: int,
        headers: int,
        placement: Placement,
        fabric: Fabric,
        issued: Issued,
        outgoing: Outgoing,
        lane: Lane,
    ) -> None:
        self._spec = spec
        self._index = index
        self._headers = headers
        self._fabric = fabric
        self._issued = issued
        self._outgoing = outgoing
        self._lane = lane
        self._answers: dict[int, Lane] = {}
        self.viewed(placement)

    def viewed(self, placement: Placement) -> None:
        """Take another placement."""
        self._placement = placement
        self._servers = {i: each for i, each in enumerate(placement.servers) if self._fabric.place(each) is None}
        self._blocks: dict[tuple[int, int], int] = {}  # of shards, by server

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._servers)

    def among(self, keys: Keys) -> dict[int, tuple[int, int]]:
        """The servers elsewhere that have some of the keys, and where the group of each begins and ends."""
        bounds = keys.bounds
        return {server: (bounds[i], bounds[i + 1]) for i, server in self._servers.items() if bounds[i + 1] > bounds[i]}

    def pull_keys(
        self,
        task: Task[Any],
        keys: Keys,
        out: Array,
        after: Sequence[Task[Any]],
        finish: Callable[[], None],
        again: Callable[[], None],
        above: Above | None = None,
    ) -> None:
        """Ask for the keys that are elsewhere, put their values into `out` (n, width), then call `finish`; or `again`,
        when the shards are elsewhere once the servers can be asked.
        """
        groups = self.among(keys)
        order = keys.order if keys.order.size else np.arange(keys.array.size)
        asked = {server: keys.array[order[start:end]] for server, (start, end) in groups.items()}
        filtered = self._outgoing.filters_pulls
        laid = self._outgoing.lay(task, "request", {server: (part, NO_VALUES) for server, part in asked.items()})
        asked_flags = (above.slot, above.threshold) if above is not None else None

        placement = self._placement

        def send(time: int, after: list[int]) -> None:
            if placement is not self._placement:
                self._issued.withdraw(task, asked=False)
                again()
                return
            for server, (at, _, count, coded, _) in laid.items():
                coded = coded if filtered else None
                self._fabric.send(server, Pull(time, after, placement.view, self._index, count, at, coded, asked_flags))

        def answered(source: int, reply: PullReply) -> None:
            start, end = groups[source]

            def arrived(part: Array, flags: Array) -> None:
                if task.time != reply.time:  # it was asked again meanwhile
                    self._fabric.send(source, Taken(reply.time))
                    return
                scatter_rows(part, order[start:end], out)
                if above is not None:
                    above.out[order[start:end]] = flags
                self._take(task, source, finish)

            self._fetch_answer(task, source, reply, asked[source], arrived)

        self._issued.issue(task, groups, send, after, answered, self._lane, queued=False)

    def _fetch_answer(
        self, task: Task[Any], server: int, reply: PullReply, asked: Array, then: Callable[[Array, Array], None]
    ) -> None:
        """Read an answer; call `then` with values (n, width), unpacked by the filters if there are any, and flags (n,).

        Filters unpack the answers of a server in its order, in which they were packed; reads may end in any other.
        """
        coded, shape = reply.coded, (asked.size, self._spec.width)
        before = np.zeros(shape, self._spec.dtype).nbytes if coded is None else coded.keys + coded.values
        blob = np.empty(before + reply.flags, np.uint8)

        def take() -> None:
            flags = NO_VALUES
            if reply.flags:
                flags = np.unpackbits(
                    np.frombuffer(zlib.decompress(blob[before:].tobytes()), np.uint8), count=asked.size
                )
            if coded is None:
                then(blob[:before].view(self._spec.dtype).reshape(shape), flags)
                return
            chain = self._outgoing.chain(server, "pull")
            try:
                packet = chain.decode(blob[: coded.keys], blob[coded.keys : before], coded.notes, reply.count, asked)
            except Error as error:
                if task.time == reply.time:
                    task.fail(error)
                then(np.zeros(shape, self._spec.dtype), flags)
            else:
                then(packet.values, flags)

        turn = self._answers.setdefault(server, Lane()).add(take)
        self._fabric.fetch(server, reply.keys if coded is not None else reply.values, blob, turn.come)

    def scan(
        self,
        task: Task[Any],
        lo: int,
        hi: int | None,
        found: list[tuple[Array, Array]],
        after: Sequence[Task[Any]],
        finish: Callable[[], None],
        again: Callable[[], None],
    ) -> None:
        """Ask all servers elsewhere for the keys in ``[lo, hi)`` that they have; add them to `found`, then `finish`; or
        `again`, as `pull_keys`.
        """
        placement = self._placement

        def send(time: int, after: list[int]) -> None:
            if placement is not self._placement:
                self._issued.withdraw(task, asked=False)
                again()
                return
            for server in self._servers.values():
                self._fabric.send(server, PullScan(time, after, placement.view, self._index, lo, hi))

        def answered(source: int, reply: PullReply) -> None:
            keys = np.empty(reply.count, np.uint64)
            values = np.empty((reply.count, self._spec.width), self._spec.dtype)

            def arrived() -> None:
                if task.time != reply.time:
                    self._fabric.send(source, Taken(reply.time))
                    return
                found.append((keys, values))
                self._take(task, source, finish)

            self._fabric.fetch(
                source, reply.keys, keys, lambda: self._fabric.fetch(source, reply.values, values, arrived)
            )

        self._issued.issue(task, self._servers.values(), send, after, answered, self._lane, queued=False)

    def _take(self, task: Task[Any], source: int, finish: Callable[[], None]) -> None:
        self._fabric.send(source, Taken(task.time))
        if self._issued.received(task, source):
            finish()

    def copy(self, shard: int, row: int, cells: Array, consistent: bool, then: Callable[[], None]) -> None:
        """Read values of a dense shard from one of its rows on, then call `then`.

        The shard's header tells its place, which stays; read at rest, it is read before and after.
        """
        self._outgoing.fetched += cells.nbytes
        head, at = self._placement.heads[shard], self._headers + shard * header.BYTES
        words = np.empty(header.WORDS, np.int64)
        offset = row * self._spec.row_bytes

        def placed() -> None:
            self._blocks[head, shard] = header.block_of(int(words[header.LOCATION]))
            before = int(words[header.VERSION])

            def check() -> None:
                if before & 1 or int(words[header.VERSION]) != before:
                    self._fabric.fetch(head, at, words, placed)
                else:
                    then()

            after = (lambda: self._fabric.fetch(head, at, words, check)) if consistent else then
            self._fabric.fetch(head, self._blocks[head, shard] + offset, cells, after)

        if consistent or (head, shard) not in self._blocks:
            self._fabric.fetch(head, at, words, placed)
        else:
            self._fabric.fetch(head, self._blocks[head, shard] + offset, cells, then)
