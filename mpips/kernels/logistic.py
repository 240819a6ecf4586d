"""Logistic loss over rows of sparse features, and evaluation of its scores."""

import numpy as np
from numba import njit

from mpips.metrics import BINS, FINEST, LIMIT

_SCALE = BINS / (2 * np.arcsinh(LIMIT * FINEST))


@njit(nogil=True, cache=True)
def score(indptr, indices, values, row, weights):
    """Inner product of one row with the weights; `values` of size 0 means that all are 1."""
    z = 0.0
    if values.size == 0:
        for k in range(indptr[row], indptr[row + 1]):
            z += weights[indices[k]]
    else:
        for k in range(indptr[row], indptr[row + 1]):
            z += weights[indices[k]] * values[k]
    return z


@njit(nogil=True, cache=True)
def log_loss(z, label):
    """−log of the probability that the score z gives to a label of 0 or 1."""
    margin = z if label > 0.5 else -z
    return np.log1p(np.exp(-margin)) if margin > 0 else np.log1p(np.exp(margin)) - margin


@njit(nogil=True, cache=True)
def loss_gradient(indptr, indices, values, labels, weights, gradient):
    """Logistic loss summed over the rows; its gradient by weight is added to `gradient` (features,), float32.

    Source: Li et al. 2014, section 5.1 (sparse logistic regression).
    """
    loss = 0.0
    for row in range(labels.size):
        z = score(indptr, indices, values, row, weights)
        loss += log_loss(z, labels[row])
        error = np.float32(1.0 / (1.0 + np.exp(-z)) - labels[row])
        if values.size == 0:
            for k in range(indptr[row], indptr[row + 1]):
                gradient[indices[k]] += error
        else:
            for k in range(indptr[row], indptr[row + 1]):
                gradient[indices[k]] += error * values[k]
    return loss


@njit(nogil=True, cache=True)
def evaluate(indptr, indices, values, labels, weights, histogram):
    """Logistic loss summed over the rows; every score is counted in `histogram` (2, BINS) by its label."""
    loss = 0.0
    for row in range(labels.size):
        z = score(indptr, indices, values, row, weights)
        loss += log_loss(z, labels[row])
        clipped = min(LIMIT, max(-LIMIT, z))
        place = min(BINS - 1, int(BINS / 2 + np.arcsinh(clipped * FINEST) * _SCALE))
        histogram[1 if labels[row] > 0.5 else 0, place] += 1
    return loss
