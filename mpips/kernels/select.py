"""Some entries of a packet: which have values, which are drawn, and taking or putting back their rows."""

import numpy as np
from numba import njit

from mpips.kernels.hashing import mix64

_UNIT = 2.0**-53


@njit(nogil=True, cache=True)
def uniform(counter):
    """A number in [0, 1) that depends on the counter alone."""
    return (mix64(counter) >> np.uint64(11)) * _UNIT


@njit(nogil=True, cache=True)
def nonzero_rows(values, kept):
    """Set `kept` (n,) bool where a row of `values` (n, width) is not all zero; returns how many are."""
    count = 0
    for i in range(values.shape[0]):
        some = False
        for j in range(values.shape[1]):
            some |= values[i, j] != 0
        kept[i] = some
        count += some
    return count


@njit(nogil=True, cache=True)
def draw_rows(probability, counter, kept):
    """Set each of `kept` (n,) bool with a probability, by the random numbers from `counter` on; returns how many."""
    count = 0
    for i in range(kept.size):
        kept[i] = uniform(counter + np.uint64(i)) < probability
        count += kept[i]
    return count


# Which rows are kept can't be foretold: each is written to the place of the next, and stays there if it is kept.


@njit(nogil=True, cache=True)
def take_keys(keys, kept, out):
    """Copy the keys (n,) that are kept."""
    at = 0
    for i in range(kept.size):
        if at == out.size:
            break
        out[at] = keys[i]
        at += kept[i]


@njit(nogil=True, cache=True)
def take_rows(values, kept, factor, out):
    """Copy the rows of `values` (n, width) that are kept, multiplied by a factor of their dtype."""
    at = 0
    for i in range(kept.size):
        if at == out.shape[0]:
            break
        for j in range(values.shape[1]):
            out[at, j] = values[i, j] * factor
        at += kept[i]


@njit(nogil=True, cache=True)
def spread_rows(values, kept, out):
    """Put the rows of `values` (m, width) where `kept` (n,) is set, and zeros elsewhere."""
    out[:] = 0
    last = values.shape[0] - 1
    if last < 0:
        return
    at = 0
    for i in range(kept.size):
        row = min(at, last)
        for j in range(values.shape[1]):
            value = values[row, j]
            out[i, j] = value if kept[i] else out[i, j]
        at += kept[i]
