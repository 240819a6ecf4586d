"""Numbers through the range coder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels.range_coder import decode_numbers, encode_numbers

KINDS = 3
LARGEST = 2**61


def coded(numbers, kinds):
    data = np.empty(100 + 12 * numbers.size, np.uint8)
    size = encode_numbers(numbers.copy(), kinds, KINDS, data)
    assert size <= data.size
    return data[:size].copy()


def bits(numbers):
    return 8 * coded(numbers, np.zeros(numbers.shape, np.uint8)).size / numbers.size


number = st.one_of(st.just(0), st.integers(-3, 3), st.integers(-LARGEST, LARGEST))


@given(st.lists(st.tuples(number, number, st.integers(0, 2), st.integers(0, 2)), max_size=60))
def test_every_number_comes_back(rows):
    rows = np.array(rows, np.int64).reshape(-1, 4)
    numbers, kinds = np.ascontiguousarray(rows[:, :2]), rows[:, 2:].astype(np.uint8)
    out = np.empty_like(numbers)
    decode_numbers(coded(numbers, kinds), kinds, KINDS, out)
    assert np.array_equal(out, numbers)


@pytest.mark.parametrize("largest", [1, 5, 300, 10**6])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_many_numbers_come_back(largest, share, rng):
    numbers = rng.integers(-largest, largest, (20_000, 2), endpoint=True) * (rng.random((20_000, 2)) < share)
    kinds, out = rng.integers(0, KINDS, numbers.shape).astype(np.uint8), np.empty_like(numbers)
    decode_numbers(coded(numbers, kinds), kinds, KINDS, out)
    assert np.array_equal(out, numbers)


def entropy(numbers):
    _, counts = np.unique(numbers, return_counts=True)
    shares = counts / numbers.size
    return -(shares * np.log2(shares)).sum()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_number_takes_few_more_bits_than_its_entropy(share, rng):
    numbers = np.rint(3 * rng.normal(size=(20_000, 1)) * (rng.random((20_000, 1)) < share)).astype(np.int64)
    assert bits(numbers) < 1.05 * entropy(numbers) + 0.02


def test_numbers_that_are_all_zero_take_a_fiftieth_of_a_bit():
    assert bits(np.zeros((20_000, 1), np.int64)) < 0.02


def test_numbers_of_different_kinds_have_their_own_odds(rng):
    kinds = rng.integers(0, 2, (20_000, 1)).astype(np.uint8)
    numbers = kinds.astype(np.int64)
    assert 8 * coded(numbers, kinds).size < 0.1 * numbers.size
    assert bits(numbers) > 0.95


def test_zeros_that_lie_together_cost_less_than_zeros_here_and_there(rng):
    runs = np.repeat(rng.integers(0, 2, (500, 1)), 40, axis=0)
    assert bits(runs) < 0.25 < bits(rng.permutation(runs))


def test_what_does_not_fit_is_told_by_its_size(rng):
    numbers, room = rng.integers(-100, 100, (1000, 1)), np.empty(200, np.uint8)
    kinds = np.zeros(numbers.shape, np.uint8)
    assert encode_numbers(numbers, kinds, KINDS, room) == coded(numbers, kinds).size > room.size
