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
            if count == shards.size:  # not grouped by shard
                break
            shards[count] = shard
            starts[count] = i
            count += 1
    starts[count] = keys.size
    return count


@njit(nogil=True, cache=True)
def count_for(after, starts, successor):
    """Of the shards whose changes go to a server, ``after[i] == successor``: how many, and how many rows they have."""
    shards, rows = 0, 0
    for i in range(after.size):
        if after[i] == successor:
            shards += 1
            rows += starts[i + 1] - starts[i]
    return shards, rows


@njit(nogil=True, cache=True)
def pack(
    words, cells, headers, keys, shards, starts, numbers, after, successor, counts, dense, bits, width, slots, stride,
    out_words, out_cells,
):  # fmt: skip
    """Pack the rows of keys (n,) of those `shards` (m,) whose changes go to a server, as `server.rows.Rows` has them;
    `counts` are those of `count_for`, `out_words` and `out_cells` view where they go.
    """
    taken, total = counts
    ratio = 8 // cells.itemsize
    mask = np.uint64((np.int64(1) << bits) - 1)
    values_at = (3 * taken + 1 + total) * ratio
    state_at = values_at + total * width
    out_words[2 * taken] = 0
    which, n = 0, 0
    for i in range(shards.size):
        if after[i] != successor:
            continue
        header = headers + shards[i] * WORDS
        where = words[header + LOCATION]
        block = block_of(where)
        for k in range(starts[i], starts[i + 1]):
            out_words[3 * taken + 1 + n] = np.int64(keys[k])
            if dense:
                first = block // cells.itemsize + np.int64(keys[k] & mask) * width
                held = block // cells.itemsize + (np.int64(width) << bits) + np.int64(keys[k] & mask) * width * slots
            else:
                if k + AHEAD < starts[i + 1]:
                    fetch(words, header, 0, stride, keys[k + AHEAD])
                row = find(words, block >> 3, bits_of(where), stride, keys[k])
                first = ((block >> 3) + row * stride + 1) * ratio
                held = first + width
            for j in range(width):
                out_cells[values_at + n * width + j] = cells[first + j]
            for j in range(width * slots):
                out_cells[state_at + n * width * slots + j] = cells[held + j]
            n += 1
        out_words[which] = shards[i]
        out_words[taken + which] = numbers[shards[i]]
        which += 1
        out_words[2 * taken + which] = n


@njit(nogil=True, cache=True)
def write_dense(words, cells, headers, keys, bits, width, slots, shards, values, state):
    """The way back, up to the first key that is not of one of the `shards` held here; returns how many were written."""
    mask = np.uint64((np.int64(1) << bits) - 1)
    i = 0
    while i < keys.size:
        shard = np.int64(keys[i] >> np.uint64(bits))
        header = headers + shard * WORDS
        if shard < 0 or shard >= shards or words[header + LOCATION] == 0:
            return i
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
    return keys.size
