"""Two key lists become their union, and values of keys in both are added, to the bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels.merge import merge_sum, union
from mpips.kernels.partition import shard_of

LAST = 2**64 - 1
KEYS = st.sets(st.one_of(st.integers(0, 40), st.integers(0, LAST), st.sampled_from([0, 2**63 - 1, 2**63, LAST])))
NUMBERS = st.one_of(st.sampled_from([0.0, -0.0, 1e-30, 3e38, -3e38]), st.floats(-10, 10, width=32))


def ordered(keys, bits):
    """Keys in the order in which a push has them: by shard of a sparse table, each shard's ascending."""
    return sorted(keys, key=lambda key: (shard_of(np.uint64(key), False, bits) if bits else 0, key))


def listed(rows, bits, width, dtype):
    """Keys (n,) and values (n, width) of a dictionary of rows."""
    keys = ordered(rows, bits)
    return np.array(keys, np.uint64), np.array([rows[key] for key in keys], dtype).reshape(-1, width)


def rows(width):
    return KEYS.flatmap(lambda keys: st.fixed_dictionaries({key: st.tuples(*[NUMBERS] * width) for key in keys}))


@pytest.mark.parametrize(("width", "dtype"), [(1, "float32"), (3, "float64")])
@pytest.mark.parametrize("bits", [0, 1, 4, 10])
@given(data=st.data())
def test_the_union_has_every_key_once_in_order_with_the_sum_of_its_values(bits, width, dtype, data):
    a, b = data.draw(rows(width)), data.draw(rows(width))
    keys, values = merge_sum(*listed(a, bits, width, dtype), *listed(b, bits, width, dtype), bits)
    assert keys.tolist() == ordered(a | b, bits)
    assert union(*(np.array(ordered(each, bits), np.uint64) for each in (a, b)), bits).tolist() == keys.tolist()
    assert values.dtype == dtype
    nothing = np.full(width, -0.0, dtype)
    with np.errstate(over="ignore"):  # what is too large in NumPy is so in a kernel
        expected = [np.asarray(a.get(key, nothing), dtype) + np.asarray(b.get(key, nothing), dtype) for key in a | b]
    order = np.argsort([keys.tolist().index(key) for key in a | b])
    assert values.tobytes() == np.array(expected, dtype).reshape(-1, width)[order].tobytes()


def test_a_negative_zero_of_one_list_stays_negative():
    even, odd = np.arange(0, 10, 2, dtype=np.uint64), np.arange(1, 10, 2, dtype=np.uint64)
    values = np.full((5, 2), -0.0, np.float32)
    _, merged = merge_sum(even, values, odd, values, 0)
    assert np.signbit(merged).all()


@pytest.mark.parametrize("bits", [0, 6])
def test_long_lists_are_merged_as_by_numpy_and_not_written_to(bits, rng):
    pool = np.unique(rng.integers(0, 2**64, 30_000, np.uint64))
    lists = []
    for _ in range(2):
        keys = np.array(ordered(rng.choice(pool, 10_000, replace=False).tolist(), bits), np.uint64)
        values = rng.normal(size=(keys.size, 2)).astype(np.float32)
        keys.flags.writeable = values.flags.writeable = False  # as another process's memory should be
        lists += [keys, values]
    keys, values = merge_sum(*lists, bits)
    expected = np.zeros((pool.size, 2), np.float32)
    for pushed, rows in (lists[:2], lists[2:]):
        expected[np.searchsorted(pool, pushed)] += rows
    np.testing.assert_array_equal(np.sort(keys), np.union1d(lists[0], lists[2]))
    np.testing.assert_array_equal(values, expected[np.searchsorted(pool, keys)])
