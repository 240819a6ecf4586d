"""Open addressing over a block of an arena: keys (capacity + 1), values, update state, one after the other.

The word EMPTY marks a free slot; the key that has this very value lives in the last slot, outside the probing. Values are
zero before their key is written, so a reader that finds a key finds a valid value.
"""

import numpy as np
from numba import njit

from mpips.kernels.fence import acquire, release
from mpips.kernels.hashing import mix64
from mpips.kernels.header import COUNT, LOCATION, WORDS, bits_of, block_of

EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


def block_bytes(bits: int, width: int, slots: int, itemsize: int) -> int:
    """Bytes of a block of 2^bits slots."""
    return ((1 << bits) + 1) * (8 + width * (1 + slots) * itemsize)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def find(words, block, bits, key):  # type: ignore[no-untyped-def]
    """Slot of a key in the block whose first word is `block`, or the free slot where it belongs, as ``-1 - slot``."""
    capacity = np.int64(1) << bits
    if key == EMPTY:
        return capacity if np.uint64(words[block + capacity]) == EMPTY - np.uint64(1) else -1 - capacity
    mask = capacity - 1
    slot = np.int64(mix64(key) & np.uint64(mask))
    for _ in range(capacity):
        found = np.uint64(words[block + slot])
        if found == key:
            return slot
        if found == EMPTY:
            return -1 - slot
        slot = (slot + 1) & mask
    return -1 - capacity


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def occupy(words, block, bits, slot, key):  # type: ignore[no-untyped-def]
    """Write a key into its slot, after the value that readers may find there."""
    release()
    capacity = np.int64(1) << bits
    words[block + slot] = np.int64(EMPTY - np.uint64(1)) if slot == capacity else np.int64(key)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def clear(words, block, bits, size):  # type: ignore[no-untyped-def]
    """Make an empty table of a fresh block of `size` words."""
    capacity = np.int64(1) << bits
    words[block : block + capacity + 1] = np.int64(-1)
    words[block + capacity + 1 : block + size] = 0


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def move(words, cells, old, old_bits, new, new_bits, width, slots):  # type: ignore[no-untyped-def]
    """Copy every row of a block into a cleared, larger one; `old` and `new` are their first words."""
    ratio = 8 // cells.itemsize
    old_capacity, new_capacity = np.int64(1) << old_bits, np.int64(1) << new_bits
    old_values = (old + old_capacity + 1) * ratio
    new_values = (new + new_capacity + 1) * ratio
    old_state = old_values + (old_capacity + 1) * width
    new_state = new_values + (new_capacity + 1) * width
    each = width * slots
    for slot in range(old_capacity + 1):
        word = np.uint64(words[old + slot])
        if word == EMPTY:
            continue
        key = EMPTY if slot == old_capacity else word
        target = -1 - find(words, new, new_bits, key)
        for j in range(width):
            cells[new_values + target * width + j] = cells[old_values + slot * width + j]
        for j in range(each):
            cells[new_state + target * each + j] = cells[old_state + slot * each + j]
        occupy(words, new, new_bits, target, key)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scan(words, cells, block, bits, width, slots, lo, hi, whole, keys, values, state):  # type: ignore[no-untyped-def]
    """Copy out the rows with ``lo <= key < hi`` (`whole`: no upper bound), unsorted, as many as fit; returns how many there are.

    `keys` (n,), `values` (n, width) and `state` (n, width·slots, or (0, 0) to leave it) are filled; `block` is the first word.
    """
    ratio = 8 // cells.itemsize
    capacity = np.int64(1) << bits
    first = (block + capacity + 1) * ratio
    first_state = first + (capacity + 1) * width
    each = width * slots
    n = 0
    for slot in range(capacity + 1):
        word = np.uint64(words[block + slot])
        if word == EMPTY:
            continue
        acquire()
        key = EMPTY if slot == capacity else word
        if key < lo or (key >= hi and not whole):
            continue
        if n < keys.size:
            keys[n] = key
            for j in range(width):
                values[n, j] = cells[first + slot * width + j]
            if state.size > 0:
                for j in range(each):
                    state[n, j] = cells[first_state + slot * each + j]
        n += 1
    return n


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def load(words, cells, headers, keys, values, state, bits, width, slots, start):  # type: ignore[no-untyped-def]
    """Put rows with their update state back, as a checkpoint has them; stops, and returns where, at a shard that is full.

    `headers` is the word of the table's first header, `bits` log2 of its shards; keys whose shard is not held are passed over.
    """
    ratio = 8 // cells.itemsize
    each = width * slots
    for i in range(start, keys.size):
        header = headers + np.int64(mix64(keys[i]) >> np.uint64(64 - bits)) * WORDS
        where = words[header + LOCATION]
        if where == 0:
            continue
        block, block_bits = block_of(where) >> 3, bits_of(where)
        capacity = np.int64(1) << block_bits
        slot = find(words, block, block_bits, keys[i])
        if slot < 0:
            if is_full(words, header):
                return i
            slot = -1 - slot
            words[header + COUNT] += 1
        first = (block + capacity + 1) * ratio
        for j in range(width):
            cells[first + slot * width + j] = values[i, j]
        first_state = first + (capacity + 1) * width
        for j in range(each):
            cells[first_state + slot * each + j] = state[i, j]
        occupy(words, block, block_bits, slot, keys[i])
    return keys.size


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def is_full(words, header):  # type: ignore[no-untyped-def]
    """Whether a shard must grow before it takes another key: three quarters of its slots are used."""
    return words[header + COUNT] * 4 >= (np.int64(1) << bits_of(words[header + LOCATION])) * 3


