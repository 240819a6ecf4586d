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
def read_dense(words, cells, headers, keys, starts, ends, bits, width, slots, out, values, state):
    """Copy the rows of some stretches ``[starts[i], ends[i])`` of keys, each of one dense shard, out: the keys into
    `out` (m,), with `values` (m, width) and `state` (m, width·slots).
    """
    mask = np.uint64((np.int64(1) << bits) - 1)
    n = 0
    for i in range(starts.size):
        if starts[i] == ends[i]:
            continue
        header = headers + np.int64(keys[starts[i]] >> np.uint64(bits)) * WORDS
        first = block_of(words[header + LOCATION]) // cells.itemsize
        states = first + (np.int64(width) << bits)
        for k in range(starts[i], ends[i]):
            row = np.int64(keys[k] & mask) * width
            out[n] = keys[k]
            for j in range(width):
                values[n, j] = cells[first + row + j]
            held = states + row * slots
            for j in range(width * slots):
                state[n, j] = cells[held + j]
            n += 1


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
def read_sparse(words, cells, headers, keys, starts, ends, bits, stride, out, values, state):
    """The same for keys, which are all there, of a sparse table."""
    ratio = 8 // cells.itemsize
    width = values.shape[1]
    n = 0
    for i in range(starts.size):
        if starts[i] == ends[i]:
            continue
        header = headers + shard_of(keys[starts[i]], False, bits) * WORDS
        where = words[header + LOCATION]
        block, block_bits = block_of(where) >> 3, bits_of(where)
        for k in range(starts[i], ends[i]):
            if k + AHEAD < ends[i]:
                fetch(words, header, 0, stride, keys[k + AHEAD])
            first = (block + find(words, block, block_bits, stride, keys[k]) * stride + 1) * ratio
            out[n] = keys[k]
            for j in range(width):
                values[n, j] = cells[first + j]
            for j in range(state.shape[1]):
                state[n, j] = cells[first + width + j]
            n += 1
