import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from mpips.kernels.logistic import evaluate
from mpips.metrics import BINS, FINEST, LIMIT, Scores, pack


def rows_of_scores(scores):
    """One feature a row, whose weight is the row's score."""
    n = len(scores)
    return (
        np.arange(n + 1, dtype=np.int32),
        np.arange(n, dtype=np.int32),
        np.empty(0, np.float32),
        np.asarray(scores, np.float32),
    )


def evaluation_of(scores, labels, parts=1):
    evaluation = Scores()
    for part in np.array_split(np.arange(len(scores)), parts):
        indptr, indices, values, weights = rows_of_scores(np.asarray(scores)[part])
        histogram = np.zeros((2, BINS), np.uint32)
        loss = evaluate(indptr, indices, values, np.asarray(labels, np.float32)[part], weights, histogram)
        evaluation.add(len(part), loss, pack(histogram))
    return evaluation


@pytest.mark.parametrize("spread", [0.01, 0.05, 0.5, 1.0, 4.0])
def test_auc_and_logloss_are_those_of_scikit_learn(rng, spread):
    scores = (rng.normal(size=20_000) * spread).astype(np.float32)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-scores / spread))).astype(int)
    evaluation = evaluation_of(scores, labels, parts=7)
    assert evaluation.rows == 20_000
    assert evaluation.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)
    assert evaluation.logloss == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-scores.astype(float)))), rel=1e-6)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(-7000, 7000), st.booleans()), min_size=2, max_size=200))
def test_auc_is_exact_when_scores_fall_into_different_bins_ties_included(rows):
    middles = (np.array([score for score, _ in rows]) + 0.5) * (2 * np.arcsinh(LIMIT * FINEST) / BINS)
    scores = np.sinh(middles) / FINEST
    labels = np.array([label for _, label in rows])
    auc = evaluation_of(scores, labels).auc
    if 0 < labels.sum() < len(labels):
        assert auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    else:
        assert np.isnan(auc)


def test_scores_beyond_the_histogram_count_at_its_ends():
    assert evaluation_of([-1e30, 0.0, 1e30], [0, 0, 1]).auc == 1.0
    assert evaluation_of([-100.0, 100.0], [1, 0]).auc == 0.0


def test_nothing_evaluated_has_no_quality():
    evaluation = Scores()
    assert np.isnan(evaluation.auc)
    assert np.isnan(evaluation.logloss)
