"""Key lists of several workers to one: the union of their keys, the sums of their values."""

from typing import Any

import numpy as np
from numba import njit

from mpips.kernels.partition import shard_of

Array = np.ndarray[Any, Any]


def merge_sum(keys_a: Array, values_a: Array, keys_b: Array, values_b: Array, bits: int) -> tuple[Array, Array]:
    """Merge two key lists; a key of both gets the sum of its values, ``a + b``.

    Parameters
    ----------
    keys_a, keys_b : (n,) and (m,) uint64, unique; ascending when `bits` is 0, else by shard and, within a shard,
        ascending, as `partition.group` leaves them.
    values_a, values_b : (n, width) and (m, width), of one float type.
    bits : of a sparse table, log2 of its shards; 0 for a dense one.

    Returns
    -------
    keys : (k,) uint64, the union in the same order.
    values : (k, width).
    """
    merged: tuple[Array, Array] = _merge_sum(
        _read_only(keys_a), _read_only(values_a), _read_only(keys_b), _read_only(values_b), bits
    )
    return merged


def union(keys_a: Array, keys_b: Array, bits: int) -> Array:
    """The union (k,) of two key lists, each as in `merge_sum`, in the same order."""
    keys: Array = _union(_read_only(keys_a), _read_only(keys_b), bits)
    return keys


def _read_only(array: Array) -> Array:
    """A view that can't be written to: for numba that is a type of its own, and messages can't be written to either, so
    that one kernel is compiled instead of one for each combination.
    """
    view = array.view()
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True)
def _merge_sum(keys_a, values_a, keys_b, values_b, bits):
    n, m, width = keys_a.size, keys_b.size, values_a.shape[1]
    keys = np.empty(n + m, np.uint64)
    values = np.empty((n + m, width), values_a.dtype)
    if bits == 0:
        i, j, k = _ascending(keys_a, values_a, keys_b, values_b, keys, values)
    else:
        i, j, k = _by_shard(keys_a, values_a, keys_b, values_b, bits, keys, values)
    end = k + n - i
    _copy(keys_a[i:], keys[k:])
    _copy(keys_b[j:], keys[end:])
    _copy_rows(values_a[i:], values[k:])
    _copy_rows(values_b[j:], values[end:])
    return keys[: end + m - j], values[: end + m - j]


@njit(nogil=True, cache=True)
def _union(keys_a, keys_b, bits):
    n, m = np.uint64(keys_a.size), np.uint64(keys_b.size)
    keys = np.empty(n + m, np.uint64)
    i, j, k, one = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(1)
    if bits == 0:
        while i < n and j < m:
            a, b = keys_a[i], keys_b[j]
            keys[k] = min(a, b)
            i += np.uint64(a <= b)
            j += np.uint64(b <= a)
            k += one
    else:
        shards_a, shards_b = _shards(keys_a, bits), _shards(keys_b, bits)
        while i < n and j < m:
            a, b, shard_a, shard_b = keys_a[i], keys_b[j], shards_a[i], shards_b[j]
            from_a = (shard_a < shard_b) | ((shard_a == shard_b) & (a <= b))
            from_b = (shard_b < shard_a) | ((shard_a == shard_b) & (b <= a))
            keys[k] = a if from_a else b
            i += np.uint64(from_a)
            j += np.uint64(from_b)
            k += one
    end = k + n - i
    _copy(keys_a[i:], keys[k:])
    _copy(keys_b[j:], keys[end:])
    return keys[: end + m - j]


@njit(nogil=True, cache=True)
def _copy(source, target):
    """To its beginning; to assign one slice to another takes seconds to compile."""
    for k in range(source.size):
        target[k] = source[k]


@njit(nogil=True, cache=True)
def _copy_rows(source, target):
    for k in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[k, j] = source[k, j]


@njit(nogil=True, cache=True)
def _ascending(keys_a, values_a, keys_b, values_b, keys, values):
    """Merge ascending lists until one is over; returns how far each of the two, and the outcome, has come.

    Which list comes next can't be predicted, so nothing here is a jump, at least for one value a key; nor is there a
    sign to be looked at.
    """
    width = values.shape[1]
    n, m, one = np.uint64(keys_a.size), np.uint64(keys_b.size), np.uint64(1)
    i, j, k = np.uint64(0), np.uint64(0), np.uint64(0)
    while i < n and j < m:
        a, b = keys_a[i], keys_b[j]
        from_a, from_b = a <= b, b <= a
        keys[k] = a if from_a else b
        values[k, 0] = _sum(values_a[i, 0], from_a, values_b[j, 0], from_b)
        for c in range(1, width):
            values[k, c] = _sum(values_a[i, c], from_a, values_b[j, c], from_b)
        i += np.uint64(from_a)
        j += np.uint64(from_b)
        k += one
    return np.int64(i), np.int64(j), np.int64(k)


@njit(nogil=True, cache=True)
def _by_shard(keys_a, values_a, keys_b, values_b, bits, keys, values):
    """The same of lists that are ascending within each shard."""
    n, m, width = keys_a.size, keys_b.size, values.shape[1]
    shards_a, shards_b = _shards(keys_a, bits), _shards(keys_b, bits)
    i, j, k = 0, 0, 0
    while i < n and j < m:
        a, b = keys_a[i], keys_b[j]
        shard_a, shard_b = shards_a[i], shards_b[j]
        from_a = (shard_a < shard_b) | ((shard_a == shard_b) & (a <= b))
        from_b = (shard_b < shard_a) | ((shard_a == shard_b) & (b <= a))
        keys[k] = a if from_a else b
        values[k, 0] = _sum(values_a[i, 0], from_a, values_b[j, 0], from_b)
        for c in range(1, width):
            values[k, c] = _sum(values_a[i, c], from_a, values_b[j, c], from_b)
        i += from_a
        j += from_b
        k += 1
    return i, j, k


@njit(nogil=True, cache=True, inline="always")
def _sum(x, with_x, y, with_y):
    """x + y, either, or nothing, which is -0.0: x + -0.0 is x to the bit, while -0.0 + 0.0 would be 0.0."""
    nothing = type(x)(-0.0)
    return (x if with_x else nothing) + (y if with_y else nothing)


@njit(nogil=True, cache=True)
def _shards(keys, bits):
    """The shard of every key, (n,) int32."""
    shards = np.empty(keys.size, np.int32)
    for i in range(keys.size):
        shards[i] = shard_of(keys[i], False, bits)
    return shards
