"""What a worker reads: values of keys straight from the arenas of servers on its node, and copies into its own arena.

`words` and `cells` view the memory of all arenas on the node as int64 and as the table's dtype. `places` (shards, 2)
holds, for each shard, the word of its header and the byte offset of its server's arena, or -1 when that is on another node.
"""

import numpy as np
from numba import njit

from mpips.kernels.fence import acquire
from mpips.kernels.hashing import mix64
from mpips.kernels.header import LOCATION, VERSION, bits_of, block_of
from mpips.kernels.sparse import find


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def gather_dense(words, cells, places, bits, width, keys, out):  # type: ignore[no-untyped-def]
    """Copy the rows `keys` (n,) of a dense table into `out` (n, width); keys whose shard is not on this node are left."""
    mask = np.uint64((np.int64(1) << bits) - 1)
    current = np.int64(-1)
    values = np.int64(-1)
    for i in range(keys.size):
        shard = np.int64(keys[i] >> np.uint64(bits))
        if shard != current:
            current = shard
            header = places[shard, 0]
            values = np.int64(-1)
            if header >= 0:
                values = (places[shard, 1] + block_of(words[header + LOCATION])) // cells.itemsize
        if values >= 0:
            row = values + np.int64(keys[i] & mask) * width
            for j in range(width):
                out[i, j] = cells[row + j]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def gather_sparse(words, cells, places, bits, width, keys, out):  # type: ignore[no-untyped-def]
    """Copy the rows of any keys of a sparse table into `out` (n, width), zeros where there is none.

    A shard whose block moves meanwhile is noticed by its LOCATION, and the key is looked up again.
    """
    ratio = 8 // cells.itemsize
    for i in range(keys.size):
        shard = np.int64(mix64(keys[i]) >> np.uint64(64 - bits))
        header, base = places[shard, 0], places[shard, 1]
        if header < 0:
            continue
        while True:
            where = words[header + LOCATION]
            acquire()
            block, block_bits = (base + block_of(where)) >> 3, bits_of(where)
            slot = find(words, block, block_bits, keys[i])
            acquire()
            if slot >= 0:
                row = (block + (np.int64(1) << block_bits) + 1) * ratio + slot * width
                for j in range(width):
                    out[i, j] = cells[row + j]
            else:
                for j in range(width):
                    out[i, j] = 0
            acquire()
            if words[header + LOCATION] == where:
                break


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def read_range(words, header, cells, start, out):  # type: ignore[no-untyped-def]
    """Copy `out.size` cells from `start`; True when the shard was not written meanwhile."""
    before = words[header + VERSION]
    acquire()
    out[:] = cells[start : start + out.size]
    acquire()
    return before & 1 == 0 and words[header + VERSION] == before


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def check_keys(keys, rows):  # type: ignore[no-untyped-def]
    """Index of the first key that is not larger than the one before it, or not below `rows` (0: no bound); -1 if all are."""
    for i in range(keys.size):
        if (i > 0 and keys[i] <= keys[i - 1]) or (rows > 0 and keys[i] >= rows):
            return i
    return -1


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def copy_finite(values, out):  # type: ignore[no-untyped-def]
    """Copy (n,) values; returns how many are NaN or infinite."""
    bad = 0
    for i in range(values.size):
        value = values[i]
        out[i] = value
        bad += not (value - value == 0)
    return bad


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def copy_finite_rows(values, order, out):  # type: ignore[no-untyped-def]
    """Copy the rows of `values` (n, width) in the order given; returns how many values are NaN or infinite."""
    bad = 0
    for i in range(order.size):
        row = order[i]
        for j in range(values.shape[1]):
            value = values[row, j]
            out[i, j] = value
            bad += not (value - value == 0)
    return bad


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scatter_rows(values, order, out):  # type: ignore[no-untyped-def]
    """Put row i of `values` (n, width) at row ``order[i]`` of `out`."""
    for i in range(order.size):
        for j in range(values.shape[1]):
            out[order[i], j] = values[i, j]
