"""Open addressing over a block of an arena: 2^bits + 1 rows, each a key, its values and their update state.

A row lies in one stretch, so that looking a key up and using it costs one trip to memory. The word EMPTY marks a free
row; the key that has this very value lives in the last row, outside the probing. Values are zero before their key is
written, so a reader that finds a key finds a valid value.

`words` views an arena as int64 and `cells` as the table's dtype; `block` is the word where a block begins, `stride` the
words of a row (see `row_words`).
"""

import numpy as np
from numba import njit

from mpips.kernels.hashing import mix64
from mpips.kernels.header import COUNT, LOCATION, WORDS, bits_of, block_of
from mpips.kernels.memory import acquire, prefetch, release
from mpips.kernels.partition import shard_of

EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_TAKEN = np.uint64(0xFFFFFFFFFFFFFFFE)  # in the last row: it is not free
AHEAD = 12  # keys between fetching a row and using it


def row_words(width: int, slots: int, itemsize: int) -> int:
    """Words of a row: 8 bytes of key, then values and state."""
    return 1 + -(-width * (1 + slots) * itemsize // 8)


def block_bytes(bits: int, stride: int) -> int:
    """Bytes of a block of 2^bits + 1 rows."""
    return ((1 << bits) + 1) * stride * 8


@njit(nogil=True, cache=True)
def find(words, block, bits, stride, key):
    """Row of a key, or the free row where it belongs, as ``-1 - row``."""
    capacity = np.int64(1) << bits
    if key == EMPTY:
        return capacity if np.uint64(words[block + capacity * stride]) == _TAKEN else -1 - capacity
    mask = capacity - 1
    row = np.int64(mix64(key) & np.uint64(mask))
    for _ in range(capacity):
        found = np.uint64(words[block + row * stride])
        if found == key:
            return row
        if found == EMPTY:
            return -1 - row
        row = (row + 1) & mask
    return -1 - capacity


@njit(nogil=True, cache=True)
def fetch(words, header, base, stride, key):
    """Begin to bring the row where a key's probing starts into the cache; `base` is the byte offset of the arena."""
    where = words[header + LOCATION]
    mask = (np.int64(1) << bits_of(where)) - 1
    row = np.int64(mix64(key) & np.uint64(mask))
    prefetch(words, ((base + block_of(where)) >> 3) + row * stride)


@njit(nogil=True, cache=True)
def resolve(words, headers, keys, bits, stride, rows):
    """The word where the row of each key (n,) begins, into `rows` (n,), or -1; returns how many keys have none.

    `headers` is the word of the table's first header, `bits` log2 of its shards.
    """
    missing = 0
    for i in range(keys.size):
        where = words[headers + shard_of(keys[i], False, bits) * WORDS + LOCATION]
        row = np.int64(-1)
        if where != 0:
            block = block_of(where) >> 3
            row = find(words, block, bits_of(where), stride, keys[i])
            rows[i] = block + row * stride
        if row < 0:
            rows[i] = -1
            missing += 1
    return missing


@njit(nogil=True, cache=True)
def occupy(words, block, bits, stride, row, key):
    """Write a key into its row, after the values that readers may find there."""
    release()
    words[block + row * stride] = np.int64(_TAKEN) if row == np.int64(1) << bits else np.int64(key)


@njit(nogil=True, cache=True)
def clear(words, block, bits, stride):
    """Make an empty table of a fresh block."""
    for row in range((np.int64(1) << bits) + 1):
        at = block + row * stride
        words[at] = -1
        words[at + 1 : at + stride] = 0


@njit(nogil=True, cache=True)
def move(words, old, old_bits, new, new_bits, stride):
    """Copy every row of a block into a cleared, larger one."""
    capacity = np.int64(1) << old_bits
    for row in range(capacity + 1):
        at = old + row * stride
        word = np.uint64(words[at])
        if word == EMPTY:
            continue
        key = EMPTY if row == capacity else word
        target = -1 - find(words, new, new_bits, stride, key)
        to = new + target * stride
        for k in range(1, stride):
            words[to + k] = words[at + k]
        occupy(words, new, new_bits, stride, target, key)


@njit(nogil=True, cache=True)
def scan(words, cells, block, bits, stride, lo, hi, whole, keys, values, state):
    """Copy out the rows with ``lo <= key < hi`` (`whole`: no upper bound), unsorted, as many as fit; returns how many
    there are.

    `keys` (n,), `values` (n, width) and `state` (n, width·slots, or (0, 0) to leave it) are filled.
    """
    ratio = 8 // cells.itemsize
    capacity = np.int64(1) << bits
    width = values.shape[1]
    n = 0
    for row in range(capacity + 1):
        at = block + row * stride
        word = np.uint64(words[at])
        if word == EMPTY:
            continue
        acquire()
        key = EMPTY if row == capacity else word
        if key < lo or (key >= hi and not whole):
            continue
        if n < keys.size:
            keys[n] = key
            first = (at + 1) * ratio
            for j in range(width):
                values[n, j] = cells[first + j]
            if state.size > 0:
                for j in range(state.shape[1]):
                    state[n, j] = cells[first + width + j]
        n += 1
    return n


@njit(nogil=True, cache=True)
def load(words, cells, headers, keys, values, state, bits, stride, start):
    """Put rows with their update state back, as a checkpoint has them; stops, and returns where, at a shard that is
    full.

    `headers` is the word of the table's first header, `bits` log2 of its shards; keys whose shard is not held are
    passed over.
    """
    ratio = 8 // cells.itemsize
    width = values.shape[1]
    for i in range(start, keys.size):
        header = headers + shard_of(keys[i], False, bits) * WORDS
        where = words[header + LOCATION]
        if where == 0:
            continue
        block, block_bits = block_of(where) >> 3, bits_of(where)
        row = find(words, block, block_bits, stride, keys[i])
        if row < 0:
            if is_full(words, header):
                return i
            row = -1 - row
            words[header + COUNT] += 1
        first = (block + row * stride + 1) * ratio
        for j in range(width):
            cells[first + j] = values[i, j]
        for j in range(state.shape[1]):
            cells[first + width + j] = state[i, j]
        occupy(words, block, block_bits, stride, row, keys[i])
    return keys.size


@njit(nogil=True, cache=True)
def is_full(words, header):
    """Whether a shard must grow before it takes another key: two thirds of its rows are used."""
    return words[header + COUNT] * 3 >= (np.int64(1) << bits_of(words[header + LOCATION])) * 2
