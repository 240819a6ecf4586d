"""A worker's vector against NumPy on arrays of all keys."""

import math
import operator

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from mpips.dataserver.batch import Batch
from mpips.worker.keys import KeyRangeError
from mpips.worker.vector import Vector, VectorError

N = 40  # keys are below
DTYPES = st.sampled_from([np.float32, np.float64])
KEYS = st.sets(st.integers(0, N - 1)).map(sorted)
SPARSE = [getattr(scipy.sparse, f"{form}_{kind}") for form in ("csr", "csc", "coo") for kind in ("matrix", "array")]


@st.composite
def vectors(draw, width=None, keys=KEYS):
    chosen = draw(keys)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    shape = (len(chosen),) if width is None else (len(chosen), width)
    return Vector(chosen, np.round(rng.normal(size=shape), 1).astype(draw(DTYPES)))


def vector(rng, keys, width=None):
    return Vector(keys, rng.normal(size=(len(keys),) if width is None else (len(keys), width)))


# --- what it holds --------------------------------------------------------------------------------------------------


def test_a_vector_has_keys_values_and_a_length():
    w = Vector([3, 2**64 - 1][:1], [1.5])
    assert (w.keys.dtype, w.keys.tolist(), w.values.tolist(), len(w)) == (np.uint64, [3], [1.5], 1)
    assert repr(Vector([1, 2], np.zeros((2, 3), np.float32))) == "Vector(2 keys, width=3, float32)"


def test_whole_numbers_become_float64_and_float32_stays():
    assert Vector([1, 2], [1, 2]).values.dtype == np.float64
    assert Vector([1, 2], np.ones(2, np.float32)).values.dtype == np.float32
    assert Vector([], []).values.shape == (0,)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([2, 1], "sorted and unique, but 2 precedes 1"),
        ([1, 1], "sorted and unique, but 1 precedes 1"),
        ([-1, 1], "not be negative, got -1"),
        ([3, -1], "not be negative, got -1"),
        ([0.5, 1.5], "a list of integers, got float64"),
        ([[1, 2]], "a list of integers, got int64"),
    ],
)
def test_wrong_keys_are_refused(keys, text):
    with pytest.raises(KeyRangeError, match=text):
        Vector(keys, np.ones(2))
    with pytest.raises(KeyRangeError, match=text):
        Vector([1, 2], [1.0, 2.0])[keys]


@pytest.mark.parametrize("values", [np.ones(3), np.ones((3, 2)), np.ones((2, 1, 1)), 1.0, ["a", "b"], [1j, 2]])
def test_values_that_do_not_fit_the_keys_are_refused(values):
    with pytest.raises(VectorError, match=r"2 keys need numbers of shape \(2,\) or \(2, width\), got "):
        Vector([1, 2], values)


@given(vectors(), KEYS)
def test_a_part_has_the_values_of_its_keys_and_zeros_elsewhere(w, keys):
    part = w[keys]
    assert part.keys.tolist() == keys
    np.testing.assert_array_equal(part.values, w.dense(N)[keys])
    assert part.values.dtype == w.values.dtype


@given(vectors(width=2), KEYS)
def test_a_part_of_a_wide_vector_has_whole_rows(w, keys):
    np.testing.assert_array_equal(w[keys].values, w.dense(N)[keys])


def test_keys_beyond_53_bits_are_told_apart():
    keys = np.array([2**53, 2**53 + 1, 2**64 - 2, 2**64 - 1], np.uint64)
    w = Vector(keys, [1.0, 2.0, 3.0, 4.0])
    assert w[keys[[1, 3]]].values.tolist() == [2.0, 4.0]
    assert (w + Vector(keys[[1, 2]], [10.0, 20.0])).values.tolist() == [1.0, 12.0, 23.0, 4.0]
    assert w @ Vector(keys[[0, 3]], [10.0, 20.0]) == 90.0


def test_a_dense_array_is_as_long_as_it_is_asked_to_be():
    assert Vector([1, 3], [5.0, 6.0]).dense(5).tolist() == [0.0, 5.0, 0.0, 6.0, 0.0]
    assert Vector([], []).dense(2).tolist() == [0.0, 0.0]
    with pytest.raises(VectorError, match="key 3 of a vector of 2 keys is not below 3"):
        Vector([1, 3], [5.0, 6.0]).dense(3)


@given(st.one_of(vectors(), vectors(width=2)))
def test_norms_and_nonzeros_are_those_of_numpy(w):
    flat = w.values.astype(float).reshape(-1)
    assert w.norm() == pytest.approx(np.linalg.norm(flat))
    assert w.norm(1) == pytest.approx(np.abs(flat).sum())
    assert w.norm(math.inf) == pytest.approx(np.abs(flat).max(initial=0.0))
    assert w.nonzeros() == np.count_nonzero(flat)


def test_another_norm_is_refused():
    with pytest.raises(VectorError, match="norms 2, 1 and inf, got ord=3"):
        Vector([1], [1.0]).norm(3)


# --- sums and multiples ---------------------------------------------------------------------------------------------


@given(
    st.sampled_from([operator.add, operator.sub]),
    st.one_of(st.tuples(vectors(), vectors()), st.tuples(vectors(width=3), vectors(width=3))),
)
def test_sums_go_by_key_over_the_keys_of_both(operation, pair):
    u, w = pair
    before = u.values.copy(), w.values.copy()
    got = operation(u, w)
    np.testing.assert_array_equal(got.keys, np.union1d(u.keys, w.keys))
    np.testing.assert_array_equal(got.dense(N), operation(u.dense(N), w.dense(N)))
    assert got.values.dtype == np.result_type(u.values, w.values)
    assert (u.values.tolist(), w.values.tolist()) == (before[0].tolist(), before[1].tolist())


def test_vectors_over_the_same_keys_share_them(rng):
    u = vector(rng, [1, 5, 9])
    w = Vector(u.keys, [1.0, 2.0, 3.0])
    assert (u + w).keys is u.keys
    assert (2 * u - w).keys is u.keys
    np.testing.assert_array_equal((2 * u - w).values, 2 * u.values - w.values)


@given(vectors(), st.sampled_from([2, -0.5, np.float32(0.25), np.float64(3)]))
def test_multiples_are_those_of_numpy(w, a):
    for got, expected in (
        (a * w, a * w.values),
        (w * a, w.values * a),
        (w / a, w.values / a),
        (-w, -w.values),
    ):
        assert got.keys is w.keys
        assert got.values.dtype == expected.dtype
        np.testing.assert_array_equal(got.values, expected)


def test_float32_stays_float32_when_multiplied():
    assert (0.5 * Vector([1], np.ones(1, np.float32))).values.dtype == np.float32


@pytest.mark.parametrize(
    "operation",
    [
        lambda w: w + 1,
        lambda w: 1 + w,
        lambda w: w * w,
        lambda w: 1 / w,
        lambda w: np.ones(2) * w,
        lambda w: w * np.ones(2),
        lambda w: np.ones(2) + w,
        lambda w: w - np.ones(2),
        lambda w: w @ 2.0,
        lambda w: np.ones((1, 2, 2)) @ w,
        lambda w: w @ np.ones((2, 2, 1)),
        lambda w: w @ Batch(w.keys, *[np.zeros(1, np.int32)] * 2, np.empty(0), np.empty(0)),
    ],
)
def test_what_has_no_meaning_is_a_type_error(operation):
    with pytest.raises(TypeError):
        operation(Vector([1, 2], [1.0, 2.0]))


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.matmul])
def test_vectors_of_different_width_do_not_go_together(operation):
    with pytest.raises(VectorError, match=r"Vector\(1 keys, float64\) and Vector\(1 keys, width=2, float64\) do not"):
        operation(Vector([1], [1.0]), Vector([1], [[1.0, 2.0]]))


# --- products -------------------------------------------------------------------------------------------------------


@given(st.one_of(st.tuples(vectors(), vectors()), st.tuples(vectors(width=3), vectors(width=3))))
def test_a_dot_product_goes_by_key(pair):
    u, w = pair
    expected = float((u.dense(N).astype(float) * w.dense(N).astype(float)).sum())
    assert u @ w == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert type(u @ w) is float


@pytest.mark.parametrize("form", [np.asarray, *SPARSE])
@pytest.mark.parametrize("width", [None, 3])
@pytest.mark.parametrize("keys", [[2, 5, 11], [0, 1, 2], list(range(12))])
def test_a_matrix_with_a_column_for_each_key_multiplies_values_in_their_order(form, width, keys, rng):
    w = vector(rng, keys, width)
    x = rng.normal(size=(7, len(keys)))
    for got, expected in ((form(x) @ w, x @ w.values), (w @ form(x.T), w.values.T @ x.T)):
        assert type(got) is np.ndarray
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [np.asarray, *SPARSE])
@pytest.mark.parametrize("width", [None, 3])
@pytest.mark.parametrize("keys", [[2, 5, 11], []])
def test_a_matrix_with_another_number_of_columns_has_one_for_every_key(form, width, keys, rng):
    w = vector(rng, keys, width)
    x = rng.normal(size=(7, 12))
    expected = x[:, keys] @ w.values
    np.testing.assert_allclose(form(x) @ w, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(w @ form(x.T), expected.T, rtol=1e-12, atol=1e-12)


def test_an_array_of_one_dimension_is_a_row():
    w = Vector([2, 5], [1.0, 10.0])
    assert np.array([3.0, 4.0]) @ w == 43.0
    assert w @ np.array([3.0, 4.0]) == 43.0


@pytest.mark.parametrize("form", [np.asarray, *SPARSE])
def test_a_matrix_that_fits_neither_way_is_refused(form):
    w = Vector([2, 5, 11], [1.0, 2.0, 3.0])
    with pytest.raises(VectorError, match="11 rows or columns of a matrix fit neither the 3 keys of a vector, nor all"):
        form(np.ones((2, 11))) @ w
    with pytest.raises(VectorError, match="fit neither"):
        w @ form(np.ones((2, 2)))


@pytest.mark.parametrize("ones", [True, False])
@pytest.mark.parametrize("width", [None, 3])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("rows", [0, 30])
def test_a_batch_goes_by_key(ones, width, own, rows, rng):
    keys = np.unique(rng.integers(0, N, 20)).astype(np.uint64)
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 5, rows))]).astype(np.int32)
    indices = rng.integers(0, keys.size, indptr[-1]).astype(np.int32)
    values = rng.normal(size=0 if ones else indices.size).astype(np.float32)
    batch = Batch(keys, indptr, indices, values, np.zeros(rows, np.float32))
    w = vector(rng, keys if own else np.arange(5, 25), width)
    data = np.ones(indices.size) if ones else values.astype(float)
    x = scipy.sparse.csr_matrix((data, keys[indices].astype(int), indptr), shape=(rows, N))
    got = batch @ w
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, x @ w.dense(N), rtol=1e-5, atol=1e-5)


def test_a_step_of_gradient_descent_reads_like_its_formula(rng):
    truth = vector(rng, [3, 7, 20])
    x = rng.normal(size=(50, 3))
    y = x @ truth
    w = Vector(truth.keys, np.zeros(3))
    for _ in range(200):
        w = w - 0.01 * Vector(w.keys, x.T @ (x @ w - y))
    assert (w - truth).norm() < 1e-6
