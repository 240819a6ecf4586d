"""Where the shards of one table lie in a server's arena: each header at its place, each block where there was room.

A dense block holds values, then update state; a sparse one is a hash table, which moves to a block of twice the size
when it is full.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from mpips.fabric.arena import Allocator
from mpips.kernels import header, sparse
from mpips.kernels.draw import draw
from mpips.server.resolved import Resolved
from mpips.table import HEADER_BYTES, TableSpec

FEWEST_BITS = 6

Array = np.ndarray[Any, Any]


class Blocks:
    """Those of the shards that are here.

    Parameters
    ----------
    spec : the table.
    headers : arena offset of the table's first shard header.
    arena : (bytes,) uint8, this server's arena.
    space : hands out its stretches.

    Attributes
    ----------
    held : the shards that are here, in the order in which they came.
    numbers : (shards,) int64, how often each has been changed, as far as copies of it need that.
    """

    def __init__(self, spec: TableSpec, headers: int, arena: Array, space: Allocator) -> None:
        self.spec = spec
        self.held: list[int] = []
        self.numbers = np.zeros(spec.shards, np.int64)
        self._bits = spec.shard_bits
        self._space = space
        self._words = arena.view(np.int64)
        self._cells = arena.view(spec.dtype)
        self._headers = headers // 8
        self._stride = sparse.row_words(spec.width, spec.slots, spec.itemsize)
        self._resolved = Resolved(
            lambda keys, rows: sparse.resolve(self._words, self._headers, keys, self._bits, self._stride, rows)
        )
        self._words[self._headers : self._headers + spec.shards * header.WORDS] = 0

    def hold(self, shards: Iterable[int]) -> None:
        """Make new shards: their values are what the table begins with, their state is zero."""
        for shard in shards:
            if self.spec.kind == "dense":
                bits = self._bits
                block = self._space.allocate(self._dense_bytes())
                self._make_new(shard, block)
            else:
                bits = max(FEWEST_BITS, (self.spec.rows * 3 // 2 // self.spec.shards).bit_length())
                block = self._fresh_block(bits)
            self._header(shard)[header.LOCATION] = header.location(block, bits)
            self.held.append(shard)

    def take_copy(self, shard: int, of: "Blocks") -> None:
        """Hold a shard as it is elsewhere, version and all."""
        theirs, mine = of._header(shard), self._header(shard)
        there, bits = header.block_of(int(theirs[header.LOCATION])), header.bits_of(int(theirs[header.LOCATION]))
        size = self._dense_bytes() if self.spec.kind == "dense" else sparse.block_bytes(bits, self._stride)
        block = self._space.allocate(size)
        self._words[block // 8 : (block + size) // 8] = of._words[there // 8 : (there + size) // 8]
        mine[:] = theirs
        mine[header.LOCATION] = header.location(block, bits)
        self.held.append(shard)
        self._resolved.forget()

    def give_back(self, shard: int) -> None:
        """Hold a shard no longer; its memory is free."""
        head = self._header(shard)
        block = header.block_of(int(head[header.LOCATION]))
        head[header.LOCATION], head[header.COUNT] = 0, 0
        self.held.remove(shard)
        self.numbers[shard] = 0
        self._space.free(block)
        self._resolved.forget()

    def clear_shard(self, shard: int) -> None:
        """Make a shard as a new one is."""
        head = self._header(shard)
        block, bits = header.block_of(int(head[header.LOCATION])) // 8, header.bits_of(int(head[header.LOCATION]))
        if self.spec.kind == "dense":
            self._make_new(shard, block * 8)
        else:
            sparse.clear(self._words, block, bits, self._stride)
            head[header.COUNT] = 0
        self._resolved.forget()

    def _make_new(self, shard: int, block: int) -> None:
        """Fill a dense block with what the table begins with."""
        self._words[block // 8 : (block + self._dense_bytes()) // 8] = 0
        if (initial := self.spec.initial) is not None:
            lo, hi = self.spec.shard_range(shard)
            start = block // self.spec.itemsize
            values = self._cells[start : start + (hi - lo) * self.spec.width].reshape(hi - lo, self.spec.width)
            draw(values[:, : initial.columns], lo, initial.deviation, initial.seed)

    @property
    def versions(self) -> Array:
        """What counts the changes of each shard (shards,) int64, a view; a shard that is held anew goes on counting."""
        return self._words[self._headers : self._headers + self.spec.shards * header.WORDS].reshape(-1, header.WORDS)[
            :, header.VERSION
        ]

    def _header(self, shard: int) -> Array:
        start = self._headers + shard * header.WORDS
        return self._words[start : start + header.WORDS]

    def _dense_bytes(self) -> int:
        size = self.spec.shard_rows * self.spec.row_bytes * (1 + self.spec.slots)
        return -(-size // HEADER_BYTES) * HEADER_BYTES

    def _fresh_block(self, bits: int) -> int:
        block = self._space.allocate(sparse.block_bytes(bits, self._stride))
        sparse.clear(self._words, block // 8, bits, self._stride)
        return block

    def _grow(self, shard: int) -> None:
        head = self._header(shard)
        old = int(head[header.LOCATION])
        old_block, bits = header.block_of(old), header.bits_of(old)
        block = self._fresh_block(bits + 1)
        sparse.move(self._words, old_block // 8, bits, block // 8, bits + 1, self._stride)
        head[header.LOCATION] = header.location(block, bits + 1)
        self._space.free(old_block)
        self._resolved.forget()

    def _block(self, shard: int) -> tuple[Array, Array]:
        """Values (cells,) and state (cells, slots) of a dense shard, as views."""
        spec = self.spec
        start = header.block_of(int(self._header(shard)[header.LOCATION])) // spec.itemsize
        cells = spec.shard_rows * spec.width
        values = self._cells[start : start + cells]
        return values, self._cells[start + cells : start + cells * (1 + spec.slots)].reshape(cells, spec.slots)
