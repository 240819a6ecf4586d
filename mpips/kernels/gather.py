"""What a worker reads: values of keys straight from the arenas of servers on its node, and copies into its own arena.

`words` and `cells` view the memory of all arenas on the node as int64 and as the table's dtype. `places` (shards, 2)
holds, for each shard, the word of its header and the byte offset of its server's arena, or -1 when that is on another
node.
"""

import numpy as np
from numba import njit

from mpips.kernels.header import LOCATION, VERSION, bits_of, block_of
from mpips.kernels.memory import acquire
from mpips.kernels.partition import shard_of
from mpips.kernels.search import first_from
from mpips.kernels.sparse import AHEAD, fetch, find


@njit(nogil=True, cache=True)
def gather_dense(words, cells, places, bits, width, keys, out):
    """Copy the rows `keys` (n,) of a dense table into `out` (n·width,); keys whose shard is not on this node are left.

    The inner loop is as plain as can be: many loads are then under way at once.
    """
    mask = np.uint64((np.int64(1) << bits) - 1)
    wide = np.uint64(width)
    i = 0
    while i < keys.size:
        shard = keys[i] >> np.uint64(bits)
        end = first_from(keys, i, (shard + np.uint64(1)) << np.uint64(bits))
        header = places[shard, 0]
        if header >= 0:
            first = np.uint64((places[shard, 1] + block_of(words[header + LOCATION])) // cells.itemsize)
            if width == 1:
                for k in range(i, end):
                    out[k] = cells[first + (keys[k] & mask)]
            else:
                for k in range(i, end):
                    row = first + (keys[k] & mask) * wide
                    for j in range(width):
                        out[k * width + j] = cells[row + np.uint64(j)]
        i = end


@njit(nogil=True, cache=True)
def gather_sparse(words, cells, places, bits, width, stride, keys, out):
    """Copy the rows of any keys of a sparse table into `out` (n·width,), zeros where there is none.

    A shard whose block moves meanwhile is noticed by its LOCATION, and the key is looked up again.
    """
    ratio = 8 // cells.itemsize
    for i in range(keys.size):
        if i + AHEAD < keys.size:
            ahead = shard_of(keys[i + AHEAD], False, bits)
            if places[ahead, 0] >= 0:
                fetch(words, places[ahead, 0], places[ahead, 1], stride, keys[i + AHEAD])
        shard = shard_of(keys[i], False, bits)
        header, base = places[shard, 0], places[shard, 1]
        if header < 0:
            continue
        while True:
            where = words[header + LOCATION]
            acquire()
            block = (base + block_of(where)) >> 3
            row = find(words, block, bits_of(where), stride, keys[i])
            acquire()
            if row >= 0:
                first = (block + row * stride + 1) * ratio
                for j in range(width):
                    out[i * width + j] = cells[first + j]
            else:
                for j in range(width):
                    out[i * width + j] = 0
            acquire()
            if words[header + LOCATION] == where:
                break


@njit(nogil=True, cache=True)
def flag_dense(words, cells, places, bits, width, slots, slot, threshold, keys, out):
    """Say of the rows `keys` (n,) of a dense table, into `out` (n,) bool, whether the update state in `slot` of any of
    their values is above a threshold; keys whose shard is not on this node are left.
    """
    mask = np.uint64((np.int64(1) << bits) - 1)
    for i in range(keys.size):
        shard = keys[i] >> np.uint64(bits)
        header = places[shard, 0]
        if header < 0:
            continue
        first = (places[shard, 1] + block_of(words[header + LOCATION])) // cells.itemsize + (np.int64(width) << bits)
        row = np.int64(keys[i] & mask) * width
        out[i] = False
        for j in range(width):
            if cells[first + (row + j) * slots + slot] > threshold:
                out[i] = True


@njit(nogil=True, cache=True)
def read_range(words, header, cells, start, out):
    """Copy `out.size` cells from `start`; True when the shard was not written meanwhile."""
    before = words[header + VERSION]
    acquire()
    found = cells[start : start + out.size]
    for k in range(out.size):  # assigned as a whole it takes seconds to compile
        out[k] = found[k]
    acquire()
    return before & 1 == 0 and words[header + VERSION] == before


@njit(nogil=True, cache=True)
def check_keys(keys, rows):
    """Index of the first key that is not larger than the one before it, or not below `rows` (0: no bound); -1 if
    all are.
    """
    for i in range(keys.size):
        if (i > 0 and keys[i] <= keys[i - 1]) or (rows > 0 and keys[i] >= rows):
            return i
    return -1


@njit(nogil=True, cache=True)
def copy_finite(values, out):
    """Copy (n,) values; returns how many are NaN or infinite."""
    bad = 0
    for i in range(values.size):
        value = values[i]
        out[i] = value
        bad += not np.isfinite(value)
    return bad


@njit(nogil=True, cache=True)
def copy_finite_rows(values, order, out):
    """Copy the rows of `values` (n, width) in the order given; returns how many values are NaN or infinite."""
    bad = 0
    for i in range(order.size):
        row = order[i]
        for j in range(values.shape[1]):
            value = values[row, j]
            out[i, j] = value
            bad += not np.isfinite(value)
    return bad


@njit(nogil=True, cache=True)
def scatter_rows(values, order, out):
    """Put row i of `values` (n, width) at row ``order[i]`` of `out`."""
    for i in range(order.size):
        for j in range(values.shape[1]):
            out[order[i], j] = values[i, j]
