"""Sums and products of vectors over sorted keys, and of batches with them."""

import numpy as np
from numba import njit

from mpips.kernels.logistic import score


@njit(nogil=True, cache=True)
def union(keys, others):
    """The keys of two sorted lists, (n,) and (m,) uint64, each once; and the place of each of theirs among them.

    Returns
    -------
    both : (≤ n + m,) uint64, sorted.
    at, others_at : (n,) and (m,) int64.
    """
    both = np.empty(keys.size + others.size, np.uint64)
    at = np.empty(keys.size, np.int64)
    others_at = np.empty(others.size, np.int64)
    i = j = n = 0
    while i < keys.size or j < others.size:
        mine = j == others.size or (i < keys.size and keys[i] <= others[j])
        theirs = i == keys.size or (j < others.size and others[j] <= keys[i])
        both[n] = keys[i] if mine else others[j]
        if mine:
            at[i] = n
            i += 1
        if theirs:
            others_at[j] = n
            j += 1
        n += 1
    return both[:n], at, others_at


@njit(nogil=True, cache=True)
def dot(keys, values, others, other_values):
    """Inner product, in float64, of `values` (n, width) at sorted keys (n,) with others; a key of one alone adds 0."""
    total = 0.0
    i = j = 0
    while i < keys.size and j < others.size:
        if keys[i] == others[j]:
            for column in range(values.shape[1]):
                total += np.float64(values[i, column]) * other_values[j, column]
            i += 1
            j += 1
        elif keys[i] < others[j]:
            i += 1
        else:
            j += 1
    return total


@njit(nogil=True, cache=True)
def multiply(indptr, indices, values, weights, out):
    """Inner product of every row with each column of the weights (features, width), into `out` (rows, width).

    `values` of size 0 means that all are 1.
    """
    for column in range(weights.shape[1]):
        for row in range(indptr.size - 1):
            out[row, column] = score(indptr, indices, values, row, weights[:, column])
