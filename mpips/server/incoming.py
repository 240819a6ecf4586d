"""What workers have left in their arenas for a server: read in the order of their messages, and decoded.

On one node arrays are viewed where they lie; from another node they are read one-sidedly, one message of a worker after
the other, since filters and clocks count on the order.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.filters import Chain, Direction, KeysMissing
from mpips.filters.of_table import chain_of
from mpips.kernels.partition import positions
from mpips.messages import Coded, KeysGiven, KeysTaken, KeysWanted, Pull, Push, Traffic
from mpips.server.updates import Multiplied, Updates
from mpips.table import TableSpec

Array = np.ndarray[Any, Any]
Wanted = tuple[int, int, str]  # offset, values, dtype


class Incoming:
    """One for each server.

    Parameters
    ----------
    fabric : this server's.
    refuse : refuses a worker's task of a time, for a reason.

    Attributes
    ----------
    tables : the job's, once they are known; messages name them by their position.
    """

    def __init__(self, fabric: Fabric, refuse: Callable[[int, int, str], None]) -> None:
        self.tables: list[TableSpec] = []
        self._fabric = fabric
        self._refuse = refuse
        self._queues: dict[int, deque[Callable[[], None]]] = {}
        self._chains: dict[tuple[int, int, Direction], Chain] = {}
        self._lists: dict[tuple[int, int], Callable[[Array], None]] = {}
        self._parts: dict[int, list[Array]] = {}
        fabric.on(KeysGiven, self._given)

    def chain(self, worker: int, table: int, direction: Direction) -> Chain:
        """The filters between a worker and this server, which are on different nodes."""
        key = worker, table, direction
        found = self._chains.get(key)
        if found is None:
            spec = self.tables[table]
            stream = worker << 20 | self._fabric.rank
            found = self._chains[key] = chain_of(spec, direction, near=False, stream=stream)
        return found

    def traffic(self) -> Traffic:
        """What went through the filters of pulls."""
        chains = [chain for (_, _, direction), chain in self._chains.items() if direction == "pull"]
        return Traffic.total(Traffic(chain.raw, chain.sent, chain.saved()) for chain in chains)

    def push(
        self, worker: int, message: Push, led: list[tuple[int, int]], then: Callable[[Array | None, Updates], None]
    ) -> None:
        """Call `then` with the keys (n,) uint64 (None: a whole range) and the values (n, width) of a push. Of a range
        only the rows are there that this server leads, `led`.
        """
        spec = self.tables[message.table]

        def rows(flat: Array) -> Array:
            return flat.reshape(-1, spec.push_width)

        if message.coded is not None:
            assert message.keys is not None
            self._decode(worker, message, "push", message.keys, message.coded, then)
            return
        if message.keys is None:
            self._push_range(worker, message, led, then)
            return
        values = (message.values, message.count * spec.push_width, spec.dtype)
        wanted = [(message.keys, message.count, "uint64"), values]
        if not message.more:
            self.read(worker, wanted, lambda read: then(read[0], rows(read[1])))
            return
        for at, cells, count in message.more:
            wanted += [(at, count, "uint64"), (cells, count * spec.push_width, spec.dtype)]

        def join(read: list[Array]) -> None:
            keys, values = np.concatenate(read[::2]), rows(np.concatenate(read[1::2]))
            at = keys if spec.kind == "dense" else positions(keys, False, spec.shard_bits)
            order = np.lexsort((keys, at))
            then(keys[order], values[order])

        self.read(worker, wanted, join)

    def _push_range(
        self, worker: int, message: Push, led: list[tuple[int, int]], then: Callable[[Array | None, Updates], None]
    ) -> None:
        spec, product = self.tables[message.table], message.product
        place, width = message.values, spec.push_width
        if product is not None:
            place, width = product.left, product.terms
        if self._fabric.place(worker) is not None:
            runs = [(0, message.count)]
        else:
            runs = [(start - message.lo, end - message.lo) for start, end in led]
        wanted = [(place + a * width * spec.itemsize, (b - a) * width, spec.dtype) for a, b in runs]
        if product is not None:
            wanted.append((message.values, spec.push_width * product.terms, spec.dtype))

        def arrived(read: list[Array]) -> None:
            if runs == [(0, message.count)]:
                rows = read[0].reshape(-1, width)
            else:
                rows = np.zeros((message.count, width), spec.dtype)  # what is not led takes no memory
                for (a, b), part in zip(runs, read, strict=False):
                    rows[a:b] = part.reshape(-1, width)
            then(None, rows if product is None else Multiplied(rows, read[-1].reshape(spec.push_width, width)))

        self.read(worker, wanted, arrived)

    def request(self, worker: int, message: Pull, then: Callable[[Array], None]) -> None:
        """Call `then` with the keys (n,) uint64 that a pull asks for."""
        if message.coded is None:
            self.read(worker, [(message.keys, message.count, "uint64")], lambda read: then(read[0]))
            return
        self._decode(worker, message, "request", message.keys, message.coded, lambda keys, values: then(keys))

    def _decode(
        self,
        worker: int,
        message: Push | Pull,
        direction: Literal["push", "request"],
        offset: int,
        coded: Coded,
        then: Callable[[Array, Array], None],
    ) -> None:
        chain = self.chain(worker, message.table, direction)
        blob = np.empty(coded.keys + coded.values, np.uint8)

        def begin() -> None:
            self._fabric.fetch(worker, offset, blob, decode)

        def decode() -> None:
            try:
                packet = chain.decode(blob[: coded.keys], blob[coded.keys :], coded.notes, message.count)
            except KeysMissing as missing:
                signature = missing.signature

                def learn(keys: Array) -> None:
                    chain["key_cache"].learn(signature, keys)
                    decode()

                self._lists[worker, message.time] = learn
                self._fabric.send(worker, KeysWanted(message.time, message.table, direction, signature))
                return
            except Error as problem:
                self._refuse(worker, message.time, str(problem))
            else:
                then(packet.entries(), packet.values)
            self._end(worker)

        self._queue(worker, begin)

    def _given(self, worker: int, message: KeysGiven) -> None:
        keys = np.empty(message.count, np.uint64)

        def arrived() -> None:
            self._fabric.send(worker, KeysTaken(message.time))
            parts = self._parts.setdefault(worker, [])
            parts.append(keys)
            if message.left == 0:
                del self._parts[worker]
                self._lists.pop((worker, message.time))(np.concatenate(parts))

        self._fabric.fetch(worker, message.keys, keys, arrived)

    def read(self, worker: int, wanted: Sequence[Wanted], then: Callable[[list[Array]], None]) -> None:
        """Read arrays from a worker's arena: at once on this node; from another, in the order of its messages."""
        if self._fabric.place(worker) is not None:
            then([self._fabric.values(worker, at, count, dtype) for at, count, dtype in wanted])
            return
        arrays = [np.empty(count, dtype) for _, count, dtype in wanted]
        left = [len(arrays)]

        def begin() -> None:
            for (at, _, _), array in zip(wanted, arrays, strict=True):
                self._fabric.fetch(worker, at, array, arrived)

        def arrived() -> None:
            left[0] -= 1
            if left[0] == 0:
                then(arrays)
                self._end(worker)

        self._queue(worker, begin)

    def forget(self, rank: int) -> None:
        """A rank is dead: what it has left will not be read any more."""
        self._queues.pop(rank, None)
        self._parts.pop(rank, None)
        for known in [key for key in self._lists if key[0] == rank]:
            del self._lists[known]

    def greet(self, worker: int) -> None:
        """A rank has become a worker, perhaps once more: the filters between it and this server begin anew."""
        for known in [key for key in self._chains if key[0] == worker]:
            del self._chains[known]

    def _queue(self, worker: int, begin: Callable[[], None]) -> None:
        queue = self._queues.setdefault(worker, deque())
        queue.append(begin)
        if len(queue) == 1:
            begin()

    def _end(self, worker: int) -> None:
        """The first of a worker's messages is done with."""
        queue = self._queues.get(worker)
        if queue:
            queue.popleft()
            if queue:
                queue[0]()
