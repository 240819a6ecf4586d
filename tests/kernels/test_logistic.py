import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit

from mpips.kernels.logistic import evaluate, loss_gradient
from mpips.metrics import BINS, FINEST, LIMIT


def rows(rng, ones, n=200, features=50):
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 9, n))]).astype(np.int32)
    indices = rng.integers(0, features, indptr[-1]).astype(np.int32)  # a row may have a position twice
    values = np.empty(0, np.float32) if ones else rng.normal(size=indices.size).astype(np.float32)
    labels = rng.integers(0, 2, n).astype(np.float32)
    weights = rng.normal(size=features).astype(np.float32)
    x = csr_matrix((np.ones(indices.size) if ones else values.astype(float), indices, indptr), shape=(n, features))
    return (indptr, indices, values, labels, weights), x


@pytest.mark.parametrize("ones", [True, False])
def test_loss_and_gradient_are_those_of_the_formula(ones, rng):
    (indptr, indices, values, labels, weights), x = rows(rng, ones)
    z = x @ weights.astype(float)
    gradient = np.full(weights.size, 3.0, np.float32)
    loss = loss_gradient(indptr, indices, values, labels, weights, gradient)
    assert loss == pytest.approx(np.logaddexp(0, np.where(labels == 1, -z, z)).sum(), rel=1e-6)
    np.testing.assert_allclose(gradient - 3.0, x.T @ (expit(z) - labels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ones", [True, False])
def test_evaluation_has_the_same_loss_and_the_histogram_of_the_scores(ones, rng):
    (indptr, indices, values, labels, weights), x = rows(rng, ones)
    z = x @ weights.astype(float)
    histogram = np.zeros((2, BINS), np.uint32)
    loss = evaluate(indptr, indices, values, labels, weights, histogram)
    assert loss == loss_gradient(indptr, indices, values, labels, weights, np.zeros_like(weights))
    for label in (0, 1):
        end = np.arcsinh(LIMIT * FINEST)
        expected, _ = np.histogram(np.clip(np.arcsinh(z[labels == label] * FINEST), -end, end), BINS, (-end, end))
        assert np.abs(np.cumsum(expected) - np.cumsum(histogram[label].astype(int))).max() <= 1  # of a score at an edge


def test_the_loss_of_certain_rows_neither_overflows_nor_vanishes():
    indptr, indices = np.array([0, 1, 2], np.int32), np.array([0, 1], np.int32)
    labels, weights = np.array([0, 1], np.float32), np.array([1e4, 1e4], np.float32)
    gradient = np.zeros(2, np.float32)
    assert loss_gradient(indptr, indices, np.empty(0, np.float32), labels, weights, gradient) == 1e4
    assert gradient.tolist() == [1.0, 0.0]
