"""Reading the shards of servers on this node: plain loads from their arenas, no message."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpips.fabric import Fabric
from mpips.kernels import header, sparse
from mpips.kernels.gather import flag_dense, gather_dense, gather_sparse, read_range
from mpips.table import TableSpec

Array = np.ndarray[Any, Any]
NO_STATE = (0, 0)


class Near:
    """Where the shards of a table lie in this node's memory.

    Parameters
    ----------
    spec : the table.
    headers : arena offset of its first shard header, at every server.
    heads : server of each shard.
    fabric : this worker's.

    Attributes
    ----------
    shards : those whose server is on this node.
    """

    def __init__(self, spec: TableSpec, headers: int, heads: Sequence[int], fabric: Fabric) -> None:
        self._spec = spec
        self._itemsize = spec.itemsize
        self._stride = sparse.row_words(spec.width, spec.slots, spec.itemsize)
        self._words = fabric.memory.view(np.int64)
        self._cells = fabric.memory.view(spec.dtype)
        self._places = np.full((spec.shards, 2), -1, np.int64)  # word of the header, offset of the arena
        for shard, head in enumerate(heads):
            base = fabric.place(head)
            if base is not None:
                self._places[shard] = (base + headers) // 8 + shard * header.WORDS, base
        self._views: dict[int, Array] = {}
        self.shards = set(np.flatnonzero(self._places[:, 0] >= 0).tolist())

    def gather(self, keys: Array, out: Array) -> None:
        """Copy the values of those keys (n,) that are here into `out` (n·width,)."""
        spec = self._spec
        if spec.kind == "dense":
            gather_dense(self._words, self._cells, self._places, spec.shard_bits, spec.width, keys, out)
        else:
            gather_sparse(self._words, self._cells, self._places, spec.shard_bits, spec.width, self._stride, keys, out)

    def above(self, keys: Array, slot: int, threshold: float, out: Array) -> None:
        """Say of those rows (n,) of a dense table that are here whether a slot of their state is above a threshold."""
        spec = self._spec
        flag_dense(
            self._words, self._cells, self._places, spec.shard_bits, spec.width, spec.slots, slot, threshold, keys, out
        )

    def values(self, shard: int) -> Array:
        """Values (rows·width,) of a dense shard, as a view: it stays where it is."""
        view = self._views.get(shard)
        if view is None:
            lo, hi = self._spec.shard_range(shard)
            first = self._first(shard, 0)
            view = self._views[shard] = self._cells[first : first + (hi - lo) * self._spec.width]
        return view

    def copy_at_rest(self, shard: int, row: int, cells: Array) -> bool:
        """The same; False when the shard was written meanwhile."""
        return bool(read_range(self._words, self._places[shard, 0], self._cells, self._first(shard, row), cells))

    def scan(self, shard: int, lo: int, hi: int | None) -> tuple[Array, Array]:
        """Keys (n,) in ``[lo, hi)``, unsorted, and values (n, width) of a sparse shard."""
        spec = self._spec
        head, base = (int(word) for word in self._places[shard])
        room = 0
        while True:
            where = int(self._words[head + header.LOCATION])
            room = max(room, int(self._words[head + header.COUNT]))
            keys = np.empty(room, np.uint64)
            values = np.empty((room, spec.width), spec.dtype)
            block = (base + header.block_of(where)) // 8
            n = sparse.scan(
                self._words, self._cells, block, header.bits_of(where), self._stride,
                np.uint64(lo), np.uint64(hi or 0), hi is None, keys, values, np.empty(NO_STATE, spec.dtype),
            )  # fmt: skip
            if n <= room and int(self._words[head + header.LOCATION]) == where:
                return keys[:n], values[:n]
            room = max(room, int(n))

    def _first(self, shard: int, row: int) -> int:
        head, base = self._places[shard]
        block = header.block_of(int(self._words[head + header.LOCATION]))
        return (int(base) + block) // self._itemsize + row * self._spec.width
