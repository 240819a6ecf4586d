"""Some rows of many, against NumPy."""

import numpy as np
import pytest

from mpips.kernels.select import draw_rows, nonzero_rows, spread_rows, take_keys, take_rows, uniform

SHAPES = pytest.mark.parametrize("shape", [(0, 1), (1, 1), (1000, 1), (1000, 3)])


def some(shape, rng):
    values = rng.normal(size=shape) * (rng.random(shape) < 0.3)
    return values, rng.random(shape[0]) < 0.4


@SHAPES
def test_rows_are_kept_that_have_a_value(shape, rng):
    values, kept = some(shape, rng)
    count = nonzero_rows(values, kept)
    assert np.array_equal(kept, values.any(axis=1))
    assert count == np.count_nonzero(kept)


def test_minus_zero_is_zero_and_nan_is_not():
    kept = np.empty(2, np.bool_)
    nonzero_rows(np.array([[-0.0], [np.nan]]), kept)
    assert kept.tolist() == [False, True]


@SHAPES
def test_rows_are_taken_and_put_back(shape, rng):
    values, kept = some(shape, rng)
    count = np.count_nonzero(kept)
    keys, of_kept = np.arange(shape[0], dtype=np.uint64), np.empty(count, np.uint64)
    take_keys(keys, kept, of_kept)
    assert np.array_equal(of_kept, keys[kept])
    rows = np.empty((count, shape[1]))
    take_rows(values, kept, 2.0, rows)
    assert np.array_equal(rows, 2 * values[kept])
    back = np.full(shape, np.nan)
    spread_rows(rows, kept, back)
    assert np.array_equal(back, 2 * values * kept[:, None])


def test_random_numbers_are_even_and_do_not_follow_each_other(rng):
    first = rng.integers(0, 2**64, dtype=np.uint64)
    numbers = np.array([uniform(first + np.uint64(i)) for i in range(20_000)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert (abs(counts - 1000) < 6 * np.sqrt(1000)).all()
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 6 / np.sqrt(20_000)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.9, 1.0])
def test_rows_are_drawn_with_their_probability(probability, rng):
    kept = np.empty(10_000, np.bool_)
    count = draw_rows(probability, rng.integers(0, 2**64, dtype=np.uint64), kept)
    assert count == np.count_nonzero(kept)
    assert abs(count - 10_000 * probability) <= 6 * np.sqrt(10_000 * probability * (1 - probability))
