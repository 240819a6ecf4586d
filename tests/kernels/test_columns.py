"""What the batch solver does with columns, against NumPy, and the bound on which its steps rest."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels import columns as kernels

VALUES = pytest.mark.parametrize("values", ["ones", "real"])


class Columns(NamedTuple):
    """Random rows by column, and the same as a matrix."""

    matrix: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    values: np.ndarray

    @property
    def size(self):
        return self.matrix.shape[1]


def columns_of(matrix, ones):
    """The non-zeros of a matrix (n, m) float32 by column."""
    row, indices = np.nonzero(matrix)
    indptr = np.searchsorted(row, np.arange(matrix.shape[0] + 1)).astype(np.int32)
    values = matrix[row, indices] if not ones else np.empty(0, np.float32)
    return Columns(matrix, *kernels.by_column(indptr, indices.astype(np.int32), values, matrix.shape[1]))


def random_columns(rng, ones, n=60, m=20, share=0.3):
    matrix = np.where(rng.random((n, m)) < share, 1.0 if ones else rng.normal(size=(n, m)), 0.0).astype(np.float32)
    return columns_of(matrix, ones)


def reaches_of(data, edges):
    """`reach` of all blocks ``[edges[i], edges[i + 1])``."""
    out, total = np.empty(data.rows.size, np.float32), np.zeros(data.matrix.shape[0])
    for lo, hi in pairwise(edges):
        kernels.reach(data.starts, data.rows, data.values, lo, hi, total, out)
        assert not total.any()
    return out


def chances_of(scores):
    return (1 + np.tanh(scores / 2)) / 2


def derivatives_of(data, reaches, columns, labels, scores, radius):
    """The kernel's (m, 2)."""
    out, room = np.full((len(columns), 2), np.nan), np.zeros(labels.size)
    kernels.derivatives(
        data.starts, data.rows, data.values, reaches, np.asarray(columns), labels, chances_of(scores), radius, room, out
    )
    assert not room.any()
    return out


def loss_of(scores, labels):
    return np.logaddexp(0, np.where(labels == 1, -scores, scores)).sum()


@given(
    rows=st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=20),
    ones=st.booleans(),
)
def test_columns_have_the_entries_of_the_rows_in_their_order(rows, ones):
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    indices = np.array([column for row in rows for column in row], np.int32)
    numbers = np.arange(1, indices.size + 1, dtype=np.float32)
    starts, of, values = kernels.by_column(indptr, indices, numbers[: 0 if ones else indices.size], 7)
    order = np.argsort(indices, kind="stable")
    np.testing.assert_array_equal(starts, np.searchsorted(indices[order], np.arange(8)))
    np.testing.assert_array_equal(of, np.repeat(np.arange(len(rows)), np.diff(indptr))[order])
    np.testing.assert_array_equal(values, [] if ones else numbers[order])


@VALUES
def test_the_reach_of_an_entry_is_its_size_times_the_sum_over_its_row_in_the_block(values, rng):
    data = random_columns(rng, values == "ones")
    edges = [0, 3, 4, 13, 20]
    size = np.abs(data.matrix)
    expected = np.zeros_like(size)
    for lo, hi in pairwise(edges):
        expected[:, lo:hi] = size[:, lo:hi] * size[:, lo:hi].sum(axis=1, keepdims=True)
    got = np.zeros_like(size)
    got[data.rows, np.repeat(np.arange(20), np.diff(data.starts))] = reaches_of(data, edges)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@VALUES
def test_the_first_derivative_is_that_of_the_loss(values, rng):
    """Central differences in float64: the error is of the order of h², so 1e-6 relative to the sum of |x|."""
    data = random_columns(rng, values == "ones")
    labels, scores = rng.integers(0, 2, 60).astype(np.float32), rng.normal(size=60)
    chosen = np.sort(rng.choice(20, 9, replace=False))
    got = derivatives_of(data, reaches_of(data, [0, 20]), chosen, labels, scores, np.full(9, 0.1))[:, 0]
    step = 1e-4
    for column, first in zip(chosen, got, strict=True):
        x = data.matrix[:, column].astype(np.float64)
        expected = (loss_of(scores + step * x, labels) - loss_of(scores - step * x, labels)) / (2 * step)
        assert first == pytest.approx(expected, abs=1e-6 * np.abs(x).sum())


@VALUES
def test_the_second_derivative_of_a_feature_alone_in_its_block_is_that_of_the_loss_at_radius_zero(values, rng):
    data = random_columns(rng, values == "ones")
    labels, scores = rng.integers(0, 2, 60).astype(np.float32), rng.normal(size=60)
    got = derivatives_of(data, reaches_of(data, range(21)), range(20), labels, scores, np.zeros(20))[:, 1]
    chances = chances_of(scores)
    np.testing.assert_allclose(got, (chances * (1 - chances)) @ data.matrix.astype(np.float64) ** 2, rtol=1e-6)


@VALUES
@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_steps_within_their_radius_never_cost_more_than_the_two_derivatives_say(values, share, rng):
    """Whatever features do in common: alike, opposed, many in a row, at scores where the loss is flat or steep."""
    for _ in range(60):
        ones = values == "ones"
        data = random_columns(rng, ones, share=share)
        if rng.random() < 0.5:  # all features the same, the worst correlation
            data = columns_of(np.repeat(data.matrix[:, :1], 20, axis=1), ones)
        labels = (rng.random(60) < rng.choice([0.1, 0.5])).astype(np.float32)
        scores = rng.normal(size=60) * rng.choice([0.1, 3.0]) + rng.choice([-10.0, 0.0, 10.0])
        radius = rng.choice([0.05, 0.5, 3.0]) * rng.random(20)
        both = derivatives_of(data, reaches_of(data, [0, 20]), range(20), labels, scores, radius)
        for direction in (np.sign(-both[:, 0]), rng.uniform(-1, 1, 20)):
            step = radius * direction
            after = loss_of(scores + data.matrix.astype(np.float64) @ step, labels)
            bound = loss_of(scores, labels) + both[:, 0] @ step + both[:, 1] @ step**2 / 2
            assert after <= bound + 1e-5 * abs(bound)


@VALUES
def test_scores_and_chances_follow_the_weights(values, rng):
    data = random_columns(rng, values == "ones")
    scores = rng.normal(size=60)
    before, chances = scores.copy(), chances_of(scores)
    columns, steps = np.array([2, 3, 11]), np.array([0.5, 0.0, -2.0])
    kernels.move(data.starts, data.rows, data.values, columns, steps, scores, chances)
    np.testing.assert_allclose(scores, before + data.matrix[:, columns].astype(np.float64) @ steps, rtol=1e-12)
    np.testing.assert_allclose(chances, chances_of(scores), rtol=1e-12)
    assert (scores != before).any()


def test_the_loss_is_that_of_numpy_and_finite_at_any_score(rng):
    scores = np.concatenate([rng.normal(size=100), [800.0, -800.0, 0.0, 800.0, -800.0]])
    labels = np.concatenate([rng.integers(0, 2, 100), [1, 1, 1, 0, 0]]).astype(np.float32)
    assert kernels.loss(scores, labels) == pytest.approx(loss_of(scores, labels), rel=1e-12)
    assert np.isfinite(kernels.loss(scores, labels))


def test_a_chance_stays_finite_at_any_score():
    data = columns_of(np.ones((2, 1), np.float32), ones=True)
    scores, chances = np.array([5.0, -5.0]), np.empty(2)
    for step, expected in ((2_000.0, 1.0), (-4_000.0, 0.0)):
        kernels.move(data.starts, data.rows, data.values, np.array([0]), np.array([step]), scores, chances)
        np.testing.assert_allclose(chances, expected)


def test_derivatives_are_finite_however_large_the_values_are():
    data = columns_of(np.array([[1e4, 2e4], [3e4, 0.0]], np.float32), ones=False)
    labels, scores = np.array([0.0, 1.0], np.float32), np.array([5_000.0, -5_000.0])
    assert np.isfinite(derivatives_of(data, reaches_of(data, [0, 2]), [0, 1], labels, scores, np.full(2, 5.0))).all()


@VALUES
def test_rows_with_one_feature_need_no_room(values, rng):
    matrix = np.zeros((60, 20), np.float32)
    matrix[np.arange(60), rng.integers(0, 20, 60)] = 1.0 if values == "ones" else rng.normal(size=60)
    data = columns_of(matrix, values == "ones")
    labels, scores, radius = rng.integers(0, 2, 60).astype(np.float32), 3 * rng.normal(size=60), rng.random(20)
    reaches, chances = reaches_of(data, [0, 20]), chances_of(scores)
    got, columns = np.empty((20, 2)), np.arange(20)
    kernels.derivatives(
        data.starts, data.rows, data.values, reaches, columns, labels, chances, radius, np.empty(0), got
    )
    np.testing.assert_allclose(got, derivatives_of(data, reaches, columns, labels, scores, radius), rtol=1e-6)


@given(rows=st.lists(st.lists(st.integers(0, 6), max_size=3), min_size=1, max_size=10), ones=st.booleans())
def test_reach_says_whether_any_row_has_several_features_in_the_block(rows, ones):
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    indices = np.array([column for row in rows for column in row], np.int32)
    by_column = kernels.by_column(indptr, indices, np.full(0 if ones else indices.size, -0.3, np.float32), 7)
    several = kernels.reach(*by_column, 2, 6, np.zeros(len(rows)), np.empty(indices.size, np.float32))
    assert several == any(sum(2 <= column < 6 for column in row) > 1 for row in rows)
