"""Which shard and which server a key belongs to."""

import numpy as np
from numba import njit

from mpips.kernels.hashing import mix64


@njit(nogil=True, cache=True, inline="always")
def shard_of(key, dense, bits):
    """The shard of a key: by its row in a dense table, by its hash in a sparse one."""
    return np.int64(key >> np.uint64(bits)) if dense else np.int64(mix64(key) >> np.uint64(64 - bits))


@njit(nogil=True, cache=True)
def positions(keys, dense, bits):
    """What clocks count of each key (n,): its row in a dense table, its shard in a sparse one."""
    at = np.empty(keys.size, np.int64)
    for i in range(keys.size):
        at[i] = np.int64(keys[i]) if dense else shard_of(keys[i], False, bits)
    return at


@njit(nogil=True, cache=True)
def group(keys, dense, bits, server_of, servers):
    """Group keys by server and, within a server, by shard.

    Parameters
    ----------
    keys : (n,) uint64.
    dense, bits : how the table's shards are found.
    server_of : (shards,) int64, position of each shard's server.
    servers : how many servers there are.

    Returns
    -------
    order : (n,) int64, the keys' positions in grouped order.
    bounds : (servers + 1,) int64, where each server's group begins and ends.
    """
    shards = server_of.size
    shard_at = np.empty(keys.size, np.int64)
    counts = np.zeros(shards, np.int64)
    for i in range(keys.size):
        shard = shard_of(keys[i], dense, bits)
        shard_at[i] = shard
        counts[shard] += 1
    bounds = np.zeros(servers + 1, np.int64)
    for shard in range(shards):
        bounds[server_of[shard] + 1] += counts[shard]
    for server in range(servers):
        bounds[server + 1] += bounds[server]
    cursor = bounds[:-1].copy()
    for shard in range(shards):
        server = server_of[shard]
        count = counts[shard]
        counts[shard] = cursor[server]
        cursor[server] += count
    order = np.empty(keys.size, np.int64)
    for i in range(keys.size):
        shard = shard_at[i]
        order[counts[shard]] = i
        counts[shard] += 1
    return order, bounds


@njit(nogil=True, cache=True)
def shard_starts(keys, dense, bits, parts):
    """Cut keys, grouped by shard, into about equal parts that share no shard: (parts + 1,) positions."""
    cuts = np.zeros(parts + 1, np.int64)
    for part in range(1, parts + 1):
        at = max(cuts[part - 1], keys.size * part // parts)
        while 0 < at < keys.size and shard_of(keys[at], dense, bits) == shard_of(keys[at - 1], dense, bits):
            at += 1
        cuts[part] = at
    return cuts


@njit(nogil=True, cache=True)
def places(keys, wanted, dense, bits):
    """Where each of the keys `wanted` (m,) stands in the keys (n,) of a push, (m,) int64; -1 where it is not.

    Both uint64; those of a push are ascending, in a sparse table by shard and then ascending.
    """
    found = np.full(wanted.size, -1, np.int64)
    for i in range(wanted.size):
        key = wanted[i]
        shard = shard_of(key, dense, bits)
        lo, hi = 0, keys.size
        while lo < hi:
            middle = (lo + hi) // 2
            other = shard_of(keys[middle], dense, bits)
            if other < shard or (other == shard and keys[middle] < key):
                lo = middle + 1
            else:
                hi = middle
        if lo < keys.size and keys[lo] == key:
            found[i] = lo
    return found
