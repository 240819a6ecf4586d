"""Key lists that servers have forgotten, and that a worker gives them again."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mpips.fabric import Fabric
from mpips.filters import KeyCache
from mpips.messages import KeysGiven, KeysTaken, KeysWanted
from mpips.table import TableSpec
from mpips.worker.table import Table

STRETCH = 1 << 12  # bytes of the arena kept free for them


class Giving(NamedTuple):
    """Keys (n,) that a server has forgotten, and that go to it again."""

    server: int
    time: int
    keys: np.ndarray[Any, Any]


class Forgotten:
    """One for each worker, once the tables are there.

    Parameters
    ----------
    fabric : this worker's.
    tables : the job's, in their order.
    """

    def __init__(self, fabric: Fabric, tables: Sequence[Table]) -> None:
        self._fabric = fabric
        self._tables = tables
        self._giving: deque[Giving] = deque()
        caches = any(_has_cache(table.spec) for table in tables)
        self._stretch = fabric.space.allocate(STRETCH) if caches else None
        fabric.on(KeysWanted, self._keys_wanted)
        fabric.on(KeysTaken, self._keys_taken)

    def close(self) -> None:
        """The worker leaves: nothing of this is left on its rank."""
        self._fabric.off(KeysWanted, KeysTaken)
        if self._stretch is not None:
            self._fabric.space.free(self._stretch)

    def _keys_wanted(self, source: int, message: KeysWanted) -> None:
        keys = self._tables[message.table].give_keys(source, message.direction, message.signature)
        self._giving.append(Giving(source, message.time, keys))
        if len(self._giving) == 1:
            self._give_part()

    def _give_part(self) -> None:
        """Lay the next keys of the first list that is wanted into the stretch that is kept free for them: the arena may
        be full of pushes that wait for these very keys.
        """
        assert self._stretch is not None
        server, time, keys = self._giving[0]
        part = keys[: STRETCH // 8]
        self._fabric.values(self._fabric.rank, self._stretch, part.size, "uint64")[:] = part
        self._giving[0] = Giving(server, time, keys[part.size :])
        self._fabric.send(server, KeysGiven(time, part.size, self._stretch, keys.size - part.size))

    def _keys_taken(self, source: int, message: KeysTaken) -> None:
        if not self._giving[0].keys.size:
            self._giving.popleft()
        if self._giving:
            self._give_part()


def _has_cache(spec: TableSpec) -> bool:
    return any(each["name"] == KeyCache.name for each in spec.push_filters + spec.pull_filters)
