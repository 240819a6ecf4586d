"""State for each key."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpips.filters.store import KeyStore

LAST = 2**64 - 1
KEYS = st.one_of(st.integers(0, 50), st.integers(0, LAST), st.sampled_from([2**63 - 1, 2**63, LAST]))


@given(st.lists(st.sets(KEYS, max_size=120), max_size=8), st.integers(1, 3))
def test_every_key_keeps_its_own_row(sets, width):
    store, expected = KeyStore(width, "float32", 10), {}
    for number, keys in enumerate(sets, 1):
        listed = np.array(sorted(keys), np.uint64)
        known = [key in expected for key in sorted(keys)]
        assert (store.find(listed) >= 0).tolist() == known
        places = store.add(listed)
        assert store.find(listed).tolist() == places.tolist()
        store.rows[places] += number
        for key in keys:
            expected[key] = expected.get(key, 0) + number
    assert dict(zip(store.keys.tolist(), store.rows[:, -1].tolist(), strict=True)) == expected


def test_a_store_grows_without_bound_and_can_be_emptied(rng):
    store, keys = KeyStore(1, "float64", 10), np.unique(rng.integers(0, LAST, 100_000, np.uint64))
    places = store.add(keys)
    store.rows[places, 0] = np.arange(keys.size)
    assert np.array_equal(store.rows[store.find(keys), 0], np.arange(keys.size))
    store.clear()
    assert store.count == 0
    assert (store.find(keys) == -1).all()
    store.add(keys)
    assert not store.rows.any()
