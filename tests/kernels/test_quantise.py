"""Steps and back, against NumPy."""

import numpy as np
import pytest

from mpips.kernels.quantise import from_steps, steps_of, to_steps

NONE = np.empty(0, np.int64)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_value_becomes_the_step_below_or_above_it(size, dtype, rng):
    values = (rng.normal(size=(200, 3)) * [1e-9, 1, 1e9]).astype(dtype)
    levels, steps = float(2 ** (8 * size - 1) - 1), np.empty(3)
    assert steps_of(values, values[:0], NONE, levels, steps)
    assert np.allclose(steps, np.abs(values).max(axis=0).astype(float) / levels, rtol=1e-15)
    planes = np.empty((size, 600), np.uint8)
    to_steps(values, values[:0], NONE, levels, steps, np.uint64(1), planes)
    codes = sum(planes[byte].astype(np.int64) << 8 * byte for byte in range(size)).reshape(200, 3) - int(levels)
    assert (np.abs(codes - values / steps) <= 1).all()
    assert np.abs(codes).max() == levels
    back = np.empty((200, 3), dtype)
    from_steps(planes, levels, steps, back)
    assert np.array_equal(back, (codes * steps).astype(dtype))


def test_whole_steps_are_not_rounded():
    values, steps = np.arange(-127.0, 128).reshape(-1, 1), np.ones(1)
    planes = np.empty((1, 255), np.uint8)
    for counter in range(100):
        to_steps(values, values[:0], NONE, 127.0, steps, np.uint64(counter * 255), planes)
        assert np.array_equal(planes[0], np.arange(255))


def test_what_is_carried_is_added_and_becomes_the_new_error(rng):
    values, carried = rng.normal(size=(50, 2)), rng.normal(size=(80, 2)) / 100
    places, before = rng.permutation(80)[:50], carried.copy()
    sums, steps = values + carried[places], np.empty(2)
    assert steps_of(values, carried, places, 127.0, steps)
    assert np.allclose(steps * 127, np.abs(sums).max(axis=0))
    planes, back = np.empty((1, 100), np.uint8), np.empty((50, 2))
    to_steps(values, carried, places, 127.0, steps, np.uint64(0), planes)
    from_steps(planes, 127.0, steps, back)
    before[places] = sums - back
    assert np.array_equal(carried, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_noticed(bad):
    values = np.array([[1.0], [bad], [2.0]])
    assert not steps_of(values, values[:0], NONE, 127.0, np.empty(1))
    assert not steps_of(np.ones((1, 1)), values, np.array([1]), 127.0, np.empty(1))
