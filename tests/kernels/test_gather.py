import numpy as np
import pytest

from mpips.kernels.gather import check_keys, copy_finite, copy_finite_rows, flag_dense, read_range, scatter_rows
from tests.shards import pulled, shards_of, table


@pytest.mark.parametrize(("width", "dtype"), [(1, "float32"), (3, "float64")])
def test_rows_of_a_dense_table_are_those_of_the_array(width, dtype, rng):
    shards = shards_of(table(rows=20_000, width=width, dtype=dtype, rule={"name": "assign"}))
    values = rng.normal(size=(20_000, width)).astype(dtype)
    shards.push_range(0, 20_000, values)
    for n in (0, 1, 5_000, 20_000):
        keys = np.sort(rng.choice(20_000, n, replace=False))
        np.testing.assert_array_equal(pulled(shards, keys), values[keys])


def test_a_row_on_another_node_is_left_as_it_is():
    shards = shards_of(table(rows=20_000, rule={"name": "assign"}))
    shards.push_range(0, 20_000, np.ones((20_000, 1), np.float32))
    shards._local[1] = -1
    got = pulled(shards, np.arange(20_000))[:, 0]
    lo, hi = shards.spec.shard_range(1)
    assert np.isnan(got[lo:hi]).all()
    assert (np.delete(got, np.s_[lo:hi]) == 1).all()


def flags_of(shards, slot, threshold, keys, out):
    spec = shards.spec
    where = shards._words, shards._cells, shards._local, spec.shard_bits, spec.width, spec.slots
    flag_dense(*where, slot, threshold, np.asarray(keys, np.uint64), out)
    return out


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("slot", [0, 1])
def test_a_row_is_flagged_when_the_state_of_any_of_its_values_is_above_the_threshold(width, slot, rng):
    shards = shards_of(table(rows=20_000, width=width, dtype="float64", rule={"name": "ftrl"}))
    shards.push_range(0, 15_000, rng.normal(size=(15_000, width)))
    state = np.concatenate([shards.dense_rows(shard)[1] for shard in sorted(shards.held)])
    keys = np.sort(rng.choice(20_000, 3_000, replace=False))
    for threshold in (0.0, 0.5, float(abs(state[keys[7], 0, slot]))):
        expected = (state[keys, :, slot] > threshold).any(axis=1)
        np.testing.assert_array_equal(flags_of(shards, slot, threshold, keys, np.zeros(3_000, bool)), expected)
        np.testing.assert_array_equal(flags_of(shards, slot, threshold, keys, np.ones(3_000, bool)), expected)
        assert 0 < np.count_nonzero(expected) < 3_000


def test_the_flag_of_a_row_on_another_node_is_left_as_it_is():
    shards = shards_of(table(rows=20_000, rule={"name": "ftrl"}))
    shards.push_range(0, 20_000, np.ones((20_000, 1), np.float32))
    shards._local[1] = -1
    lo, hi = shards.spec.shard_range(1)
    got = flags_of(shards, 0, 0.5, np.arange(20_000), np.zeros(20_000, bool))
    assert not got[lo:hi].any()
    assert np.delete(got, np.s_[lo:hi]).all()


def test_a_range_is_read_whole_only_when_its_shard_is_at_rest():
    words, cells, out = np.zeros(8, np.int64), np.arange(10.0), np.zeros(4)
    assert read_range(words, 0, cells, 3, out)
    assert out.tolist() == [3, 4, 5, 6]
    words[0] = 5
    assert not read_range(words, 0, cells, 3, out)


@pytest.mark.parametrize(
    ("keys", "rows", "first"),
    [
        ([], 9, -1),
        ([0, 3, 8], 9, -1),
        ([0, 3, 9], 9, 2),
        ([3, 3], 9, 1),
        ([4, 3], 9, 1),
        ([9], 9, 0),
        ([5, 2**64 - 1], 0, -1),
    ],
)
def test_the_first_wrong_key_is_found(keys, rows, first):
    assert check_keys(np.array(keys, np.uint64), np.uint64(rows)) == first


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_copied_and_those_that_are_not_finite_counted(dtype, rng):
    values = rng.normal(size=(1_000, 3)).astype(dtype)
    values[rng.random(values.shape) < 0.1] = np.nan
    values[0, 0], values[1, 1], values[2, 2] = np.inf, -np.inf, np.finfo(dtype).max
    bad = np.count_nonzero(~np.isfinite(values))
    out = np.zeros(values.size, dtype)
    assert copy_finite(values.reshape(-1), out) == bad
    np.testing.assert_array_equal(out, values.reshape(-1))
    order, rows = rng.permutation(1_000), np.zeros_like(values)
    assert copy_finite_rows(values, order, rows) == bad
    np.testing.assert_array_equal(rows, values[order])
    back = np.zeros_like(values)
    scatter_rows(rows, order, back)
    np.testing.assert_array_equal(back, values)
