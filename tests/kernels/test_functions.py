"""The built-in shard functions against a line of NumPy each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels import functions

READING = {
    "sum_of_squares": lambda v: (v**2).sum(),
    "sum_of_absolute_values": lambda v: np.abs(v).sum(),
    "largest_absolute_value": lambda v: np.abs(v).max(initial=0.0),
    "nonzeros": np.count_nonzero,
    "column_sums": lambda v: v.sum(axis=0),
}
WRITING = {
    "scale": ([-0.5], lambda v: v * -0.5),
    "fill": ([0.25], lambda v: np.full_like(v, 0.25)),
    "clip": ([-0.5, 0.75], lambda v: np.clip(v, -0.5, 0.75)),
    "soft_threshold": ([0.5], lambda v: np.sign(v) * np.maximum(np.abs(v) - 0.5, 0)),
    "shrink": ([0.5], lambda v: v / 1.5),
    "hard_threshold": ([0.5], lambda v: np.where(np.abs(v) < 0.5, 0, v)),
}
SHAPES = [(0, 1), (1, 1), (300, 1), (200, 3)]


def rows(rng, shape, dtype, slots=2):
    """Keys, values of which some are zero and some at the thresholds, and state."""
    values = rng.normal(size=shape)
    values[rng.random(shape) < 0.2] = 0.0
    values[rng.random(shape) < 0.1] = 0.5
    keys = np.unique(rng.integers(0, 2**64, 2 * shape[0], np.uint64))[: shape[0]]
    return keys, values.astype(dtype), rng.normal(size=(*shape, slots)).astype(dtype)


def call(name, keys, values, state, argument=()):
    return getattr(functions, name)(keys, values, state, np.array(argument, np.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", READING)
def test_functions_that_read_give_what_numpy_gives_and_change_nothing(name, shape, dtype, rng):
    keys, values, state = rows(rng, shape, dtype)
    before = values.copy()
    np.testing.assert_allclose(
        call(name, keys, values, state), READING[name](values.astype(np.float64)), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", WRITING)
def test_functions_that_write_do_what_numpy_does_and_count_the_changes(name, shape, dtype, rng):
    keys, values, state = rows(rng, shape, dtype)
    argument, reference = WRITING[name]
    before, state_before = values.copy(), state.copy()
    changed = call(name, keys, values, state, argument)
    expected = reference(before.astype(np.float64)).astype(dtype)
    np.testing.assert_array_equal(values, expected)
    assert changed == np.count_nonzero(expected != before)
    np.testing.assert_array_equal(state, state_before)


@pytest.mark.parametrize(("name", "argument"), [("fill", [0.1]), ("clip", [0.1, 0.2])])
def test_what_float32_rounds_to_the_value_that_was_there_is_no_change(name, argument, rng):
    keys, values, state = rows(rng, (50, 1), np.float32)
    assert call(name, keys, values, state, argument) > 0
    assert call(name, keys, values, state, argument) == 0


def test_a_sum_of_float32_does_not_lose_what_is_small():
    values = np.full((1 << 20, 1), 0.1, np.float32)
    total = call("sum_of_absolute_values", np.arange(1 << 20, dtype=np.uint64), values, values.reshape(1 << 20, 1, 1))
    assert total == pytest.approx((1 << 20) * float(np.float32(0.1)), rel=1e-9)


@given(
    st.dictionaries(st.integers(0, 2**64 - 1), st.tuples(*[st.integers(-4, 4)] * 2), max_size=40),
    st.sampled_from([1, 2]),
    st.one_of(st.integers(0, 45), st.just(1e300)),
)
def test_top_k_has_the_largest_and_of_equal_ones_the_smallest_keys(table, width, k):
    keys = np.array(list(table), np.uint64)
    values = np.array([row[:width] for row in table.values()], np.float32).reshape(keys.size, width)
    top = call("top_k", keys, values, np.zeros((keys.size, width, 0), np.float32), [k])
    size = {key: max(map(abs, row[:width])) for key, row in table.items()}
    expected = sorted(size, key=lambda key: (-size[key], key))[: int(min(k, 100))]
    assert sorted(top["key"].tolist()) == sorted(expected)  # to the last digit
    for key, value in top.tolist():
        assert value in table[key][:width]
        assert abs(value) == size[key]


def test_top_k_of_many_rows(rng):
    keys, values, state = rows(rng, (20_000, 1), np.float32)
    top = call("top_k", keys, values, state, [500])
    order = np.argsort(-np.abs(values[:, 0]), kind="stable")[:500]
    assert sorted(np.abs(top["value"]).tolist()) == sorted(np.abs(values[order, 0]).tolist())
    assert top["value"].tolist() == values[[keys.tolist().index(key) for key in top["key"]], 0].tolist()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slot", [0, 1])
def test_above_has_the_keys_with_state_above_the_threshold(slot, shape, rng):
    keys, values, state = rows(rng, shape, np.float64)
    got = call("above", keys, values, state, [slot, 0.3])
    assert got.dtype == np.uint64
    np.testing.assert_array_equal(got, keys[(state[:, :, slot] > 0.3).any(axis=1)])


@pytest.mark.parametrize("slot", [-1, 2, np.nan])
def test_above_refuses_a_slot_that_is_not_kept(slot, rng):
    with pytest.raises(ValueError, match="names a slot that the table's rule does not keep"):
        call("above", *rows(rng, (0, 1), np.float32), [slot, 0.3])


@pytest.mark.parametrize("name", [*WRITING, "top_k", "above"])
@pytest.mark.parametrize("argument", [[], [1.0, 2.0, 3.0]])
def test_a_wrong_number_of_arguments_is_refused_before_anything_is_written(name, argument, rng):
    keys, values, state = rows(rng, (5, 1), np.float32)
    before = values.copy()
    with pytest.raises(ValueError, match="its argument must be"):
        call(name, keys, values, state, argument)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("k", [-1.0, np.nan])
def test_top_k_refuses_a_k_that_is_no_count(k, rng):
    with pytest.raises(ValueError, match="k not negative"):
        call("top_k", *rows(rng, (5, 1), np.float32), [k])


def test_a_turn_makes_a_version_odd_and_the_next_even():
    words = np.zeros(24, np.int64)
    functions.turn(words, 8)
    assert words.tolist() == [0] * 8 + [1] + [0] * 15
    functions.turn(words, 8)
    assert words[8] == 2
