"""What is large enough to be sent, against NumPy."""

import numpy as np
import pytest

from mpips.kernels.significance import accumulate, compare, recall, violated

CASES = pytest.mark.parametrize(
    ("width", "dtype", "absolute", "relative"),
    [(1, "float32", 0.5, 0.0), (3, "float64", 0.0, 0.5), (3, "float32", 0.75, 0.5), (1, "float64", 0.0, 0.0)],
)


def rows(rng, n, width, dtype):
    """Whole eighths: their sums and halves are exact, and some are at the limit."""
    return (np.round(8 * rng.normal(size=(n, width))) / 8).astype(dtype)


@CASES
def test_updates_wait_while_all_columns_are_within_the_limit(width, dtype, absolute, relative, rng):
    values, pending = rows(rng, 50, width, dtype), rows(rng, 80, width, dtype)
    places = rng.permutation(80)[:50]
    sums, before = values + pending[places], pending.copy()
    limit = np.maximum(absolute, relative * np.abs(sums).max(axis=0))
    expected = (np.abs(sums) > limit).any(axis=1)
    out, kept = np.empty_like(values), np.empty(50, np.bool_)
    assert accumulate(values, pending, places, absolute, relative, out, kept) == expected.sum()
    assert np.array_equal(kept, expected)
    assert np.array_equal(out, sums)
    before[places] = np.where(expected[:, None], 0, sums)
    assert np.array_equal(pending, before)


@CASES
def test_values_are_sent_that_are_new_or_changed_by_more_than_the_limit(width, dtype, absolute, relative, rng):
    values, sent = rows(rng, 50, width, dtype), rows(rng, 80, width, dtype)
    places = rng.permutation(80)[:50]
    values[::3] = sent[places[::3]]
    old, before = sent[places].astype(float), sent.copy()
    expected = (np.abs(values - old) > np.maximum(absolute, relative * np.abs(old))).any(axis=1) | (places >= 60)
    kept = np.empty(50, np.bool_)
    assert compare(values, sent, places, 60, absolute, relative, kept) == expected.sum()
    assert np.array_equal(kept, expected)
    before[places[expected]] = values[expected]
    assert np.array_equal(sent, before)


def test_nan_is_sent_whatever_was_before():
    kept = np.empty(2, np.bool_)
    compare(np.array([[np.nan], [1.0]]), np.array([[1.0], [np.nan]]), np.arange(2), 2, 10.0, 0.0, kept)
    assert kept.all()


def test_values_that_did_not_come_are_as_last_sent(rng):
    sent, kept = rows(rng, 80, 2, "float32"), rng.random(50) < 0.5
    places, values = rng.permutation(80)[:50], rows(rng, int(kept.sum()), 2, "float32")
    expected = sent.copy()
    expected[places[kept]] = values
    out = np.empty((50, 2), np.float32)
    recall(values, sent, places, kept, out)
    assert np.array_equal(sent, expected)
    assert np.array_equal(out, expected[places])


def test_unknown_keys_and_violations_above_the_tolerance_are_kept():
    kept = np.empty(4, np.bool_)
    assert violated(np.array([-1, 0, 1, 2]), np.array([[0.1], [0.2], [np.nan]]), 0.1, kept) == 3
    assert kept.tolist() == [True, False, True, True]
