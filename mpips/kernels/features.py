"""Cells of text to features: a 64-bit key for every field of a row, and the name behind a key."""

import numpy as np
from numba import njit

from mpips.kernels.hashing import hash_bytes, mix64

_KEY_SEED, _CHECK_SEED = 1, 2
_TIMES = (0xC3, 0x97)  # the bytes of "×"


@njit(nogil=True, cache=True)
def hash_cells(text, spans, slots, slot_ptr, bits, keys, checks):
    """The key of every field of every row: field << 56 | a 56-bit hash of its cells.

    Parameters
    ----------
    text : uint8[size]
    spans : int32[rows, columns, 2]
        Start and stop of every cell.
    slots, slot_ptr : int32[…], int32[fields + 1]
        Field f crosses the columns slots[slot_ptr[f]:slot_ptr[f + 1]].
    bits : int
        0, or: hash the keys once more, to [0, 2^bits).
    keys : uint64[rows * fields]
        Out.
    checks : uint64[rows * fields], or of size 0
        Out: another hash of the field and its cells, which tells apart two names with one key.
    """
    fields = slot_ptr.size - 1
    columns = spans.shape[1]
    starts = np.empty(fields, np.uint64)
    for field in range(fields):
        starts[field] = mix64(field)
    first = np.empty(columns, np.uint64)
    second = np.empty(columns, np.uint64)
    at = 0
    for row in range(spans.shape[0]):
        for column in range(columns):
            start, stop = spans[row, column]
            first[column] = hash_bytes(text, start, stop, _KEY_SEED)
            if checks.size > 0:
                second[column] = hash_bytes(text, start, stop, _CHECK_SEED)
        for field in range(fields):
            key = starts[field]
            check = key
            for j in range(slot_ptr[field], slot_ptr[field + 1]):
                key = mix64(key + first[slots[j]])
                if checks.size > 0:
                    check = mix64(check + second[slots[j]])
            key = np.uint64(field) << np.uint64(56) | key >> np.uint64(8)
            if bits > 0:
                key = mix64(key) >> np.uint64(64 - bits)
            if checks.size > 0:
                checks[at] = check
            keys[at] = key
            at += 1


@njit(nogil=True, cache=True)
def add_keys(keys, checks, slots, known, known_checks, count, fresh):
    """Add to the known keys those that are new, in the order of their first appearance.

    Parameters
    ----------
    keys, checks : uint64[n]
    slots : int32[2^k], more than count + n of them
        A hash table of positions among the known, -1 where it is free.
    known, known_checks : uint64[capacity], at least count + n
    count : int
        How many are known.
    fresh : int64[n]
        Out: the positions in `keys` of the new ones.

    Returns
    -------
    count : int
    clash : int
        The position in `keys` of a key that is known with another check, and -1 when there is none.
    """
    mask = np.uint64(slots.size - 1)
    before = count
    for i in range(keys.size):
        at = mix64(keys[i]) & mask
        while slots[at] >= 0 and known[slots[at]] != keys[i]:
            at = (at + np.uint64(1)) & mask
        if slots[at] >= 0:
            if known_checks[slots[at]] != checks[i]:
                return count, i
        else:
            slots[at] = count
            known[count] = keys[i]
            known_checks[count] = checks[i]
            fresh[count - before] = i
            count += 1
    return count, -1


@njit(nogil=True, cache=True)
def enter_keys(slots, known):
    """Fill an empty hash table (int32[2^k], all -1) with the positions of distinct keys."""
    mask = np.uint64(slots.size - 1)
    for i in range(known.size):
        at = mix64(known[i]) & mask
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = i


@njit(nogil=True, cache=True)
def join_cells(text, spans, slots, slot_ptr, labels, label_ptr, chosen, offsets, out):
    """Write the names "field=cell×cell" of the chosen features, one after another.

    Parameters
    ----------
    text, spans, slots, slot_ptr
        As in `hash_cells`.
    labels, label_ptr : uint8[…], int64[fields + 1]
        Field f's names begin with labels[label_ptr[f]:label_ptr[f + 1]].
    chosen : int64[n]
        Features, each row * fields + field.
    offsets : int64[n + 1]
        Out: name i is out[offsets[i]:offsets[i + 1]].
    out : uint8[offsets[n]], or of size 0: only the offsets are wanted
    """
    fields = slot_ptr.size - 1
    write = out.size > 0
    at = 0
    for i in range(chosen.size):
        row, field = chosen[i] // fields, chosen[i] % fields
        offsets[i] = at
        for p in range(label_ptr[field], label_ptr[field + 1]):
            if write:
                out[at] = labels[p]
            at += 1
        for j in range(slot_ptr[field], slot_ptr[field + 1]):
            if j > slot_ptr[field]:
                for byte in _TIMES:
                    if write:
                        out[at] = byte
                    at += 1
            start, stop = spans[row, slots[j]]
            for p in range(start, stop):
                if write:
                    out[at] = text[p]
                at += 1
    offsets[chosen.size] = at
