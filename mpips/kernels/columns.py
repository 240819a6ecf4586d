"""Rows of sparse features by column, and what a batch solver of logistic regression does with some columns."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def by_column(indptr, indices, values, columns):
    """Turn rows into columns.

    Parameters
    ----------
    indptr, indices, values : rows as `Batch` has them; `values` of size 0 means that all are 1.
    columns : how many there are.

    Returns
    -------
    starts : (columns + 1,) int64, where each column begins.
    rows : (nnz,) int32, the rows of each column, increasing.
    values : (nnz,) float32, or of size 0.
    """
    starts = np.zeros(columns + 1, np.int64)
    for k in range(indices.size):
        starts[indices[k] + 1] += 1
    for column in range(columns):
        starts[column + 1] += starts[column]
    cursor = starts[:-1].copy()
    rows = np.empty(indices.size, np.int32)
    by = np.empty(values.size, np.float32)
    for row in range(indptr.size - 1):
        for k in range(indptr[row], indptr[row + 1]):
            at = cursor[indices[k]]
            cursor[indices[k]] += 1
            rows[at] = row
            if values.size > 0:
                by[at] = values[k]
    return starts, rows, by


@njit(nogil=True, cache=True)
def reach(starts, rows, values, lo, hi, total, out):
    """Into `out` (nnz,), for each entry x of the columns ``[lo, hi)``: |x| times the sum of |x| over its row there.

    With these in place of x², the sum over a column bounds what the columns together can do to the loss, whatever
    their correlation. `total` (n,) is room for a number per row, all zero; it is so again afterwards. Returns whether
    any row has several of the columns.
    """
    several = False
    for k in range(starts[lo], starts[hi]):
        total[rows[k]] += abs(values[k]) if values.size > 0 else 1.0
    for k in range(starts[lo], starts[hi]):
        x = abs(values[k]) if values.size > 0 else np.float32(1.0)
        several = several or total[rows[k]] > x
        out[k] = total[rows[k]] * x
    for k in range(starts[lo], starts[hi]):
        total[rows[k]] = 0.0
    return several


@njit(nogil=True, cache=True)
def derivatives(starts, rows, values, reaches, columns, labels, chances, radius, spans, out):
    """First derivative of the logistic loss by the weight of each of the `columns` (m,), and the second, into `out`
    (m, 2).

    The second is an upper bound while no weight moves by more than its `radius` (m,): a row's curvature then grows by
    no more than the exponential of how far its score moves (Yuan et al. 2010, equation 31). `reaches` are from `reach`.
    `chances` (n,) are the rows' probabilities of a label of 1. `spans` (n,) is room for a number per row, all zero; it
    is so again afterwards. It may be of size 0 when no row has several of the columns.
    """
    several = spans.size > 0
    if several:
        for i in range(columns.size):
            for k in range(starts[columns[i]], starts[columns[i] + 1]):
                spans[rows[k]] += radius[i] * (abs(values[k]) if values.size > 0 else 1.0)
    for i in range(columns.size):
        first, second = 0.0, 0.0
        begin, end = starts[columns[i]], starts[columns[i] + 1]
        if values.size == 0 and not several:  # a field of the data: the loop that a solver spends its time in
            grows = np.exp(radius[i])
            for k in range(begin, end):
                chance = chances[rows[k]]
                first += chance - labels[rows[k]]
                second += min(0.25, chance * (1.0 - chance) * grows)
        else:
            for k in range(begin, end):
                row = rows[k]
                chance = chances[row]
                x = values[k] if values.size > 0 else np.float32(1.0)
                first += (chance - labels[row]) * x
                grows = np.exp(spans[row] if several else radius[i] * abs(x))
                second += min(0.25, chance * (1.0 - chance) * grows) * reaches[k]
        out[i, 0] = first
        out[i, 1] = second
    if several:
        for i in range(columns.size):
            for k in range(starts[columns[i]], starts[columns[i] + 1]):
                spans[rows[k]] = 0.0


@njit(nogil=True, cache=True)
def move(starts, rows, values, columns, steps, scores, chances):
    """Have the weights of the `columns` (m,) change by `steps` (m,): update the rows' `scores` and `chances`."""
    for i in range(columns.size):
        step = steps[i]
        if step == 0.0:
            continue
        for k in range(starts[columns[i]], starts[columns[i] + 1]):
            row = rows[k]
            scores[row] += step if values.size == 0 else step * values[k]
            chances[row] = 1.0 / (1.0 + np.exp(-scores[row]))


@njit(nogil=True, cache=True)
def loss(scores, labels):
    """Logistic loss summed over the rows."""
    total = 0.0
    for row in range(scores.size):
        margin = scores[row] if labels[row] > 0.5 else -scores[row]
        total += np.log1p(np.exp(-margin)) if margin > 0 else np.log1p(np.exp(margin)) - margin
    return total
