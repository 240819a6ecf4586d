"""Rows of shards copied out and in again, values with their update state, as they travel from copy to copy.

`words` and `cells` view a server's arena as int64 and as the table's dtype, `headers` is the word of the table's first
header, `bits` tells how keys are spread over shards. Keys (n,) uint64 are grouped by shard.
"""

import numpy as np
from numba import njit

from mpips.kernels.header import LOCATION, VERSION, WORDS, bits_of, block_of
from mpips.kernels.memory import release
from mpips.kernels.partition import shard_of
from mpips.kernels.search import first_from
from mpips.kernels.sparse import AHEAD, fetch, find


@njit(nogil=True, cache=True)
def _first_of(keys, at, shard, dense, bits):
    """The first position, from `at` on, of a key of this shard or a later one; found in steps that double, then halve.

    Whatever the keys are, the answer lies within ``[at, n]``.
    """
    low, step = at, 1
    while low + step <= keys.size and shard_of(keys[low + step - 1], dense, bits) < shard:
        low, step = low + step, 2 * step
    high = min(low + step - 1, keys.size)
    while low < high:
        middle = (low + high) >> 1
        if shard_of(keys[middle], dense, bits) < shard:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def group_starts(keys, dense, bits, shards, starts):
    """The shards of keys, in their order, and where the keys of each begin; returns how many shards there are.

    `shards` (m,) and `starts` (m + 1,) int64 are filled as far as needed; `starts` ends with the number of keys.
    """
    count, at = 0, 0
    while at < keys.size and count < shards.size:  # there may be too few for keys that are not grouped by shard
        shard = shard_of(keys[at], dense, bits)
        shards[count], starts[count] = shard, at
        count += 1
        at = _first_of(keys, at + 1, shard + 1, dense, bits)
    starts[count] = keys.size
    return count


@njit(nogil=True, cache=True)
def starts_of(keys, dense, bits, shards):
    """Where the keys of each of these shards (m,), ascending, begin, and the end: (m + 1,) int64."""
    starts = np.empty(shards.size + 1, np.int64)
    at = 0
    for i in range(shards.size):
        at = _first_of(keys, at, shards[i], dense, bits)
        starts[i] = at
    starts[shards.size] = keys.size
    return starts


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
def note(keys, shards, starts, begun, stale, out, count):
    """Add the keys of those of the `shards` (m,) that have `begun` (by shard, bool) to `out`, after the `count` there,
    and mark these shards in `stale`, whether they have keys or not. Returns how many keys there are then; without room
    for them, how many there would be, and adds none.
    """
    total = count
    for i in range(shards.size):
        if begun[shards[i]]:
            total += starts[i + 1] - starts[i]
    if total > out.size:
        return total
    for i in range(shards.size):
        if begun[shards[i]]:
            stale[shards[i]] = True
            for k in range(starts[i], starts[i + 1]):
                out[count] = keys[k]
                count += 1
    return count


@njit(nogil=True, cache=True)
def all_follow(shards, numbers, here, before, since, source, view):
    """Whether changes of shards (m,), the `numbers` (m,) of each, that a server has sent in a view are all for the
    copies that are here, and the next of each; `here`, `before` and `since` are `Shards.numbers` and those of `Copies`.
    """
    for i in range(shards.size):
        shard = shards[i]
        if shard < 0 or shard >= here.size or before[shard] != source:
            return False
        if since[shard] > view or numbers[i] != here[shard] + 1:
            return False
    return True


@njit(nogil=True, cache=True)
def _take(cells, first, keys, start, end, mask, size, out, at):
    """Copy, of a dense block whose rows of so many cells begin at `first`, the rows of keys[start:end] to `out` from
    `at` on. The common sizes have loops as plain as can be: many loads are then under way at once.
    """
    first, at = np.uint64(first), np.uint64(at)
    if size == 1:
        for k in range(start, end):
            out[at + np.uint64(k - start)] = cells[first + (keys[k] & mask)]
    elif size == 2:
        for k in range(start, end):
            row, to = first + 2 * (keys[k] & mask), at + np.uint64(2 * (k - start))
            out[to], out[to + np.uint64(1)] = cells[row], cells[row + np.uint64(1)]
    else:
        wide = np.uint64(size)
        for k in range(start, end):
            row, to = first + (keys[k] & mask) * wide, at + np.uint64(k - start) * wide
            for j in range(size):
                out[to + np.uint64(j)] = cells[row + np.uint64(j)]


@njit(nogil=True, cache=True)
def _put(cells, first, keys, start, end, mask, size, rows):
    """The way back, from `rows` (n·size,), which has those of all keys."""
    first = np.uint64(first)
    if size == 1:
        for k in range(start, end):
            cells[first + (keys[k] & mask)] = rows[k]
    elif size == 2:
        for k in range(start, end):
            row = first + 2 * (keys[k] & mask)
            cells[row], cells[row + np.uint64(1)] = rows[2 * k], rows[2 * k + 1]
    else:
        wide = np.uint64(size)
        for k in range(start, end):
            row = first + (keys[k] & mask) * wide
            for j in range(size):
                cells[row + np.uint64(j)] = rows[k * size + j]


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
    keys_at = 3 * taken + 1
    values_at = (keys_at + total) * ratio
    state_at = values_at + total * width
    out_words[2 * taken] = 0
    which, n = 0, 0
    for i in range(shards.size):
        if after[i] != successor:
            continue
        header = headers + shards[i] * WORDS
        where = words[header + LOCATION]
        block, start, end = block_of(where), starts[i], starts[i + 1]
        for k in range(start, end):
            out_words[keys_at + n + k - start] = np.int64(keys[k])
        if dense:
            first = block // cells.itemsize
            _take(cells, first, keys, start, end, mask, width, out_cells, values_at + n * width)
            held = first + (np.int64(width) << bits)
            _take(cells, held, keys, start, end, mask, width * slots, out_cells, state_at + n * width * slots)
            n += end - start
        else:
            for k in range(start, end):
                if k + AHEAD < end:
                    fetch(words, header, 0, stride, keys[k + AHEAD])
                row = find(words, block >> 3, bits_of(where), stride, keys[k])
                first = ((block >> 3) + row * stride + 1) * ratio
                for j in range(width):
                    out_cells[values_at + n * width + j] = cells[first + j]
                for j in range(width * slots):
                    out_cells[state_at + n * width * slots + j] = cells[first + width + j]
                n += 1
        out_words[which] = shards[i]
        out_words[taken + which] = numbers[shards[i]]
        which += 1
        out_words[2 * taken + which] = n


@njit(nogil=True, cache=True)
def write_dense(words, cells, headers, keys, bits, width, slots, shards, values, state):
    """The way back, of `values` (n·width,) and `state` (n·width·slots,), up to the first key that is not of one of the
    `shards` held here; returns how many were written.
    """
    mask = np.uint64((np.int64(1) << bits) - 1)
    i = 0
    while i < keys.size:
        shard = np.int64(keys[i] >> np.uint64(bits))
        header = headers + shard * WORDS
        if shard < 0 or shard >= shards or words[header + LOCATION] == 0:
            return i
        end = first_from(keys, i, np.uint64(shard + 1) << np.uint64(bits))
        first = block_of(words[header + LOCATION]) // cells.itemsize
        words[header + VERSION] += 1
        release()
        _put(cells, first, keys, i, end, mask, width, values)
        _put(cells, first + (np.int64(width) << bits), keys, i, end, mask, width * slots, state)
        release()
        words[header + VERSION] += 1
        i = end
    return keys.size
