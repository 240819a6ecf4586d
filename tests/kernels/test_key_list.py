"""A list of keys as a whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels.key_list import from_differences, signature, to_differences

LISTS = st.lists(st.integers(0, 2**64 - 1), max_size=40)


def array(keys):
    return np.array(keys, np.uint64)


@given(st.lists(LISTS, min_size=2, max_size=10, unique_by=tuple))
def test_lists_that_differ_have_other_signatures(lists):
    assert len({signature(array(keys)) for keys in lists}) == len(lists)


@given(LISTS)
def test_a_copy_has_the_same_signature(keys):
    assert signature(array(keys)) == signature(array(keys))


def test_the_order_of_keys_and_zeros_at_the_end_count():
    lists = [
        *([0] * n for n in range(20)),
        [1, 2, 3, 4, 5, 6, 7, 8],
        [1, 2, 3, 4, 5, 6, 8, 7],
        [2, 1, 3, 4, 5, 6, 7, 8],
    ]
    assert len({signature(array(keys)) for keys in lists}) == len(lists)


@given(LISTS)
def test_differences_are_those_of_numpy_and_can_be_undone(keys):
    differences = np.empty(len(keys), np.uint64)
    to_differences(array(keys), differences)
    assert np.array_equal(differences, np.diff(array(keys), prepend=np.uint64(0)))
    from_differences(differences)
    assert np.array_equal(differences, array(keys))
