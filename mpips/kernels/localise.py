"""Rows by any keys to rows by local positions: gather rows, sort keys, name each key by its rank."""

import numpy as np
from numba import njit

from mpips.kernels.hashing import mix64

_DIGIT_BITS = 11
_DIGITS = 6  # 6 digits of 11 bits cover 64
_BUCKETS = 1 << _DIGIT_BITS


@njit(nogil=True, cache=True)
def gather_rows(indptr, keys, values, order, out_indptr, out_keys, out_values):
    """Copy the rows `order` of a ragged array, in that order.

    Parameters
    ----------
    indptr : int64[n + 1]
        Row i holds keys[indptr[i]:indptr[i + 1]].
    keys : uint64[nnz]
    values : float32[nnz], or of size 0 when there are none
    order : int64[m]
    out_indptr : int64[m + 1]
    out_keys, out_values
        Large enough for the rows taken.
    """
    has_values = values.size > 0
    at = 0
    out_indptr[0] = 0
    for i in range(order.size):
        for j in range(indptr[order[i]], indptr[order[i] + 1]):
            out_keys[at] = keys[j]
            if has_values:
                out_values[at] = values[j]
            at += 1
        out_indptr[i + 1] = at


@njit(nogil=True, cache=True)
def sort_order(keys):
    """Positions (int32[n]) that sort keys (uint64[n]), stable: a radix sort, without the constant digits."""
    n = keys.size
    counts = np.zeros((_DIGITS, _BUCKETS), np.int32)
    for i in range(n):
        key = keys[i]
        for digit in range(_DIGITS):
            counts[digit, (key >> np.uint64(digit * _DIGIT_BITS)) & np.uint64(_BUCKETS - 1)] += 1
    order = np.empty(n, np.int32)
    for i in range(n):
        order[i] = i
    other = np.empty(n, np.int32)
    for digit in range(_DIGITS):
        total = 0
        constant = False
        for bucket in range(_BUCKETS):
            count = counts[digit, bucket]
            constant |= count == n
            counts[digit, bucket] = total
            total += count
        if constant:
            continue
        shift = np.uint64(digit * _DIGIT_BITS)
        for i in range(n):
            bucket = (keys[order[i]] >> shift) & np.uint64(_BUCKETS - 1)
            other[counts[digit, bucket]] = order[i]
            counts[digit, bucket] += 1
        order, other = other, order
    return order


@njit(nogil=True, cache=True)
def localise(keys, slots, indices):
    """The distinct keys in order, and for every key its position among them.

    Parameters
    ----------
    keys : uint64[nnz]
    slots : int32[2^k], more than nnz of them
        Scratch: a hash table, so that only the distinct keys need sorting.
    indices : int32[nnz]
        Out: unique[indices] equals keys.

    Returns
    -------
    uint64[m]
        The sorted distinct keys, as `np.unique(keys)`.
    """
    mask = np.uint64(slots.size - 1)
    slots[:] = -1
    seen = np.empty(keys.size, np.uint64)
    m = 0
    for i in range(keys.size):
        key = keys[i]
        at = mix64(key) & mask
        while True:
            position = slots[at]
            if position < 0:
                position = m
                slots[at] = m
                seen[m] = key
                m += 1
                break
            if seen[position] == key:
                break
            at = (at + np.uint64(1)) & mask
        indices[i] = position
    order = sort_order(seen[:m])
    rank = np.empty(m, np.int32)
    unique = np.empty(m, np.uint64)
    for i in range(m):
        rank[order[i]] = i
        unique[i] = seen[order[i]]
    for i in range(indices.size):
        indices[i] = rank[indices[i]]
    return unique
