"""The header of a shard: eight 64-bit words at a place in a server's arena that follows from table and shard alone.

Readers on the same node load it directly, so a block that moves is announced by one word: its place and capacity are
packed into LOCATION and change together.
"""

from numba import njit

WORDS = 8
BYTES = 64
VERSION = 0  # odd while the shard is being written
LOCATION = 1  # (block offset // 64) << 8 | log2 of the capacity; 0: not held here
COUNT = 2  # sparse: keys held


@njit(nogil=True, cache=True, inline="always")
def block_of(location: int) -> int:
    """Byte offset of a shard's block in its arena."""
    return (location >> 8) << 6


@njit(nogil=True, cache=True, inline="always")
def bits_of(location: int) -> int:
    """log2 of a shard's capacity in rows."""
    return location & 0xFF


def location(block: int, bits: int) -> int:
    """Pack a block's byte offset (a multiple of 64) and log2 of its capacity into one word."""
    return (block >> 6) << 8 | bits
