"""Rows of shards copied out and in again, values with their update state, as they travel from copy to copy.

`words` and `cells` view a server's arena as int64 and as the table's dtype, `headers` is the word of the table's first
header, `bits` tells how keys are spread over shards. Keys (n,) uint64 are grouped by shard.
"""

import numpy as np
from numba import njit

from mpips.kernels.header import LOCATION, VERSION, WORDS, bits_of, block_of
from mpips.kernels.memory import release
from mpips.kernels.partition import shard_of
from mpips.kernels.sparse import AHEAD, fetch, find


@njit(nogil=True, cache=True)
def group_starts(keys, dense, bits, shards, starts):
    """The shards of keys, in their order, and where the keys of each begin; returns how many shards there are.

    `shards` (m,) and `starts` (m + 1,) int64 are filled as far as needed; `starts` ends with the number of keys.
    """
    count = 0
    for i in range(keys.size):
        shard = shard_of(keys[i], dense, bits)
        if count == 0 or shards[count - 1] != shard:
            shards[count] = shard
            starts[count] = i
            count += 1
    starts[count] = keys.size
    return count


@njit(nogil=True, cache=True)
def read_dense(words, cells, headers, keys, bits, width, slots, values, state):
    """Copy the rows of keys out of dense shards: `values` (n, width), `state` (n, width·slots)."""
    mask = np.uint64((np.int64(1) << bits) - 1)
    for i in range(keys.size):
        header = headers + np.int64(keys[i] >> np.uint64(bits)) * WORDS
        first = block_of(words[header + LOCATION]) // cells.itemsize
        row = np.int64(keys[i] & mask) * width
        for j in range(width):
            values[i, j] = cells[first + row + j]
        held = first + (np.int64(width) << bits) + row * slots
        for j in range(width * slots):
            state[i, j] = cells[held + j]


@njit(nogil=True, cache=True)
def write_dense(words, cells, headers, keys, bits, width, slots, values, state):
    """The way back."""
    mask = np.uint64((np.int64(1) << bits) - 1)
    i = 0
    while i < keys.size:
        shard = np.int64(keys[i] >> np.uint64(bits))
        header = headers + shard * WORDS
        end = i + np.searchsorted(keys[i:], np.uint64(shard + 1) << np.uint64(bits))
        first = block_of(words[header + LOCATION]) // cells.itemsize
        words[header + VERSION] += 1
        release()
        for k in range(i, end):
            row = np.int64(keys[k] & mask) * width
            for j in range(width):
                cells[first + row + j] = values[k, j]
            held = first + (np.int64(width) << bits) + row * slots
            for j in range(width * slots):
                cells[held + j] = state[k, j]
        release()
        words[header + VERSION] += 1
        i = end


@njit(nogil=True, cache=True)
def read_sparse(words, cells, headers, keys, bits, stride, values, state):
    """Copy the rows of keys, which are all there, out of sparse shards: `values` (n, width), `state` (n,
    width·slots).
    """
    ratio = 8 // cells.itemsize
    width = values.shape[1]
    for i in range(keys.size):
        if i + AHEAD < keys.size:
            fetch(words, headers + shard_of(keys[i + AHEAD], False, bits) * WORDS, 0, stride, keys[i + AHEAD])
        where = words[headers + shard_of(keys[i], False, bits) * WORDS + LOCATION]
        block = block_of(where) >> 3
        first = (block + find(words, block, bits_of(where), stride, keys[i]) * stride + 1) * ratio
        for j in range(width):
            values[i, j] = cells[first + j]
        for j in range(state.shape[1]):
            state[i, j] = cells[first + width + j]
