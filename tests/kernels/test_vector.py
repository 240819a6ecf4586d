"""Kernels over sorted keys and batches, against NumPy's set operations and SciPy's products."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from mpips.kernels.vector import dot, multiply, union

KEY_LISTS = st.sets(st.one_of(st.integers(0, 30), st.integers(2**64 - 5, 2**64 - 1))).map(
    lambda keys: np.array(sorted(keys), np.uint64)
)


@given(KEY_LISTS, KEY_LISTS)
def test_a_union_is_that_of_numpy_and_knows_the_places_of_both(keys, others):
    both, at, others_at = union(keys, others)
    np.testing.assert_array_equal(both, np.union1d(keys, others))
    np.testing.assert_array_equal(both[at], keys)
    np.testing.assert_array_equal(both[others_at], others)


@given(KEY_LISTS, KEY_LISTS, st.integers(0, 2**31), st.sampled_from([1, 3]), st.sampled_from(["float32", "float64"]))
def test_a_dot_product_is_that_of_the_keys_in_common(keys, others, seed, width, dtype):
    rng = np.random.default_rng(seed)
    values, other_values = (rng.normal(size=(k.size, width)).astype(dtype) for k in (keys, others))
    _, mine, theirs = np.intersect1d(keys, others, return_indices=True)
    expected = (values[mine].astype(float) * other_values[theirs].astype(float)).sum()
    assert dot(keys, values, others, other_values) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("ones", [True, False])
@pytest.mark.parametrize("width", [1, 3])
def test_a_product_with_rows_is_that_of_scipy(ones, width, rng):
    n, features = 200, 50
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 9, n))]).astype(np.int32)
    indices = rng.integers(0, features, indptr[-1]).astype(np.int32)  # a row may have a position twice
    values = rng.normal(size=0 if ones else indices.size).astype(np.float32)
    weights = rng.normal(size=(features, width)).astype(np.float32)
    x = csr_matrix((np.ones(indices.size) if ones else values.astype(float), indices, indptr), shape=(n, features))
    out = np.full((n, width), np.nan)
    multiply(indptr, indices, values, weights, out)
    np.testing.assert_allclose(out, x @ weights.astype(float), rtol=1e-5, atol=1e-5)
