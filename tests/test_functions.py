import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numba import njit

from mpips.functions import FUNCTIONS, FunctionError, find, pack, reduce_replies, shard_function, unpack
from mpips.kernels import functions
from mpips.kernels.functions import TOP

NUMBERS = [np.bool_, np.int8, np.int64, np.uint64, np.float32, np.float64, np.complex128]


@pytest.fixture(autouse=True)
def functions_are_as_before():
    before = dict(FUNCTIONS)
    yield
    FUNCTIONS.clear()
    FUNCTIONS.update(before)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_built_in_function_is_a_kernel_of_its_name(name):
    assert find(name).function is None
    assert getattr(functions, name).py_func.__name__ == name


def test_a_registered_function_is_found_by_its_own_name_with_all_that_was_said():
    @shard_function(reduce="max", writes=True, by_row=True)
    @njit
    def mine(keys, values, state, argument):
        return 0.0

    assert find("mine") == (mine, "max", True, True)


def test_a_wrong_name_is_told_the_nearest():
    with pytest.raises(FunctionError) as error:
        find("sum_of_square")
    assert str(error.value) == 'shard function "sum_of_square" does not exist; did you mean "sum_of_squares"?'
    with pytest.raises(FunctionError, match=r'"xyz" does not exist; valid here: above, clip, .*top_k$'):
        find("xyz")


def test_a_wrong_reduction_is_told_the_nearest():
    with pytest.raises(FunctionError, match=r'^reduction "concatenate" does not exist; did you mean "concat"\?$'):
        shard_function(reduce="concatenate")


def test_a_plain_function_is_refused_with_what_to_do():
    with pytest.raises(FunctionError, match=r'"plain" is plain Python: put @numba.njit\(nogil=True\) right above it'):

        @shard_function()
        def plain(keys, values, state, argument):
            return 0.0

    assert "plain" not in FUNCTIONS


# --- replies --------------------------------------------------------------------------------------------------------


def register(reduce):
    @shard_function(reduce=reduce)
    @njit
    def mine(keys, values, state, argument):
        return 0.0


@pytest.mark.parametrize(
    ("reduce", "replies", "expected"),
    [
        ("sum", [1.5, 2, -4.0], -0.5),
        ("sum", [np.array([[1, 2]]), np.array([[10, 20]])], [[11, 22]]),
        ("max", [1, 7, 3], 7),
        ("max", [np.array([1.0, 5.0]), np.array([2.0, 4.0])], [2.0, 5.0]),
        ("min", [np.array([1.0, 5.0]), np.array([2.0, 4.0])], [1.0, 4.0]),
        ("concat", [np.array([3, 1]), np.array([], int), np.array([2])], [3, 1, 2]),
        ("concat", [np.ones((1, 2)), np.zeros((2, 2))], [[1, 1], [0, 0], [0, 0]]),
        ("union", [np.array([3, 1]), np.array([2, 1])], [1, 2, 3]),
        (math.prod, [2.0, 3.0, 7.0], 42.0),
        (np.vstack, [np.ones(2), np.zeros((1, 2))], [[1, 1], [0, 0]]),
    ],
)
def test_replies_are_reduced_to_what_numpy_says(reduce, replies, expected):
    register(reduce)
    got = reduce_replies("mine", replies, [])
    assert np.asarray(got).tolist() == expected
    assert isinstance(got, np.ndarray) == isinstance(expected, list)


@given(st.dictionaries(st.integers(0, 2**64 - 1), st.tuples(st.integers(0, 3), st.integers(-5, 5))), st.integers(0, 12))
def test_the_top_of_the_tops_of_shards_is_the_top_of_all(table, k):
    shards = [np.array([(key, v) for key, (at, v) in table.items() if at == shard], TOP) for shard in range(4)]
    expected = sorted(((key, v) for key, (_, v) in table.items()), key=lambda row: (-abs(row[1]), row[0]))[:k]
    assert reduce_replies("top_k", shards, [k]).tolist() == expected
    servers = [reduce_replies("top_k", part, [k]) for part in (shards[:1], shards[1:])]
    assert reduce_replies("top_k", servers, [k]).tolist() == expected


def test_replies_that_can_not_be_reduced_are_an_error_that_names_the_function():
    register("sum")
    with pytest.raises(FunctionError, match=r'shard function "mine": its replies can\'t be reduced by "sum": operands'):
        reduce_replies("mine", [np.ones(2), np.ones(3)], [])
    register(math.prod)
    with pytest.raises(FunctionError, match=r'can\'t be reduced by "prod": '):
        reduce_replies("mine", [{}], [])


@pytest.mark.parametrize("reduced", [None, "text", {"a": 1}, np.ones((1, 1, 1))])
def test_a_reduction_to_something_else_than_numbers_is_an_error(reduced):
    register(lambda replies: reduced)
    with pytest.raises(FunctionError, match='shard function "mine" must reply with a number, or an array of one or'):
        reduce_replies("mine", [1.0], [])


@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=1, max_dims=2, min_side=0))))
def test_an_array_travels_with_its_type_and_shape(array):
    data, dtype, shape = pack(array)
    assert data.dtype == np.uint8
    assert data.shape == (array.nbytes,)
    dtype, shape = msgspec.msgpack.decode(msgspec.msgpack.encode((dtype, shape)))
    got = unpack(data, dtype, shape)
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize("reply", [2.5, 7, 2**63 + 1, True, np.float32(0.5)])
def test_a_number_travels_as_a_number(reply):
    got = unpack(*pack(reply))
    assert got == reply
    assert not isinstance(got, np.ndarray)


def test_records_travel_with_their_names():
    top = np.array([(2**64 - 1, 0.5), (2**53 + 1, -1.0)], TOP)
    got = unpack(*pack(top))
    assert got.dtype == TOP
    assert got.tolist() == top.tolist()


def test_what_is_unpacked_outlives_the_memory_that_it_came_in():
    data, dtype, shape = pack(np.arange(3.0))
    got = unpack(data, dtype, shape)
    data[:] = 0
    assert got.tolist() == [0.0, 1.0, 2.0]
    got[0] = 9.0


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(6.0)[::-2]])
def test_a_view_travels_as_it_looks(array):
    np.testing.assert_array_equal(unpack(*pack(array)), array)
