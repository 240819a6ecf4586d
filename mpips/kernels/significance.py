"""Which updates, or changes of a value, are large enough to be sent.

`places` (n,) int64 says which row of the state (m, width) belongs to each row of `values` (n, width). NaN counts as
large.
"""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def accumulate(values, pending, places, absolute, relative, out, kept):
    """Add what was kept back to what comes; what is still within the limit stays in `pending`.

    Parameters
    ----------
    absolute, relative : the limit of a column is `absolute`, or `relative` times its largest magnitude if that is more.
    out : (n, width) the sums.
    kept : (n,) bool, set where any column exceeds its limit.

    Returns
    -------
    int
        how many rows exceed it.
    """
    n, width = values.shape
    limits = np.zeros(width)
    for i in range(n):
        for j in range(width):
            out[i, j] = values[i, j] + pending[places[i], j]
            limits[j] = max(limits[j], abs(out[i, j]))
    for j in range(width):
        limits[j] = max(absolute, relative * limits[j])
    count = 0
    for i in range(n):
        kept[i] = False
        for j in range(width):
            if not abs(out[i, j]) <= limits[j]:
                kept[i] = True
        for j in range(width):
            pending[places[i], j] = 0 if kept[i] else out[i, j]
        count += kept[i]
    return count


@njit(nogil=True, cache=True)
def compare(values, sent, places, known, absolute, relative, kept):
    """Set `kept` (n,) bool for values to send, and note them in `sent`; returns how many there are.

    Those are rows that were never sent, at `known` and beyond, or with a column that changed by more than `absolute`
    and more than `relative` times what was sent.
    """
    count = 0
    for i in range(values.shape[0]):
        kept[i] = places[i] >= known
        for j in range(values.shape[1]):
            before = sent[places[i], j]
            if not abs(values[i, j] - before) <= max(absolute, relative * abs(before)):
                kept[i] = True
        if kept[i]:
            for j in range(values.shape[1]):
                sent[places[i], j] = values[i, j]
        count += kept[i]
    return count


@njit(nogil=True, cache=True)
def recall(values, sent, places, kept, out):
    """Note the values (m, width) that came, where `kept` (n,) is set; the other rows of `out` are as last sent."""
    at = 0
    for i in range(kept.size):
        for j in range(out.shape[1]):
            if kept[i]:
                sent[places[i], j] = values[at, j]
            out[i, j] = sent[places[i], j]
        at += kept[i]


@njit(nogil=True, cache=True)
def violated(places, violations, tolerance, kept):
    """Set `kept` (n,) bool where a key is not known (place -1) or its violation exceeds the tolerance; returns how
    many there are.
    """
    count = 0
    for i in range(places.size):
        kept[i] = places[i] < 0 or not violations[places[i], 0] <= tolerance
        count += kept[i]
    return count
