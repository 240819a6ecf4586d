"""The hash index over keys in order of arrival."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels.keep import add_keys, find_keys, index_keys

KEYS = st.lists(st.one_of(st.integers(0, 20), st.sampled_from([2**63, 2**64 - 1])), max_size=30)
CAPACITY = 10


def empty():
    return np.full(16, -1, np.int32), np.empty(CAPACITY, np.uint64)


@given(KEYS)
def test_keys_are_held_in_the_order_in_which_they_first_came(keys):
    slots, held = empty()
    places = np.full(len(keys), -5)
    stop, count = add_keys(slots, held, 0, np.array(keys, np.uint64), 0, places)
    first = list(dict.fromkeys(keys))
    assert held[:count].tolist() == first[:CAPACITY]
    assert places[:stop].tolist() == [first.index(key) for key in keys[:stop]]
    assert stop == (len(keys) if len(first) <= CAPACITY else keys.index(first[CAPACITY]))


@given(KEYS, KEYS)
def test_only_keys_that_are_held_are_found_and_a_new_index_finds_the_same(keys, others):
    slots, held = empty()
    _, count = add_keys(slots, held, 0, np.array(keys, np.uint64), 0, np.empty(len(keys), np.int64))
    position = {key: i for i, key in enumerate(held[:count].tolist())}
    larger = np.empty(64, np.int32)
    index_keys(larger, held, count)
    for index in (slots, larger):
        places = np.empty(len(others), np.int64)
        find_keys(index, held, np.array(others, np.uint64), places)
        assert places.tolist() == [position.get(key, -1) for key in others]
