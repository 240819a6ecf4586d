"""Sparse shards hold any key, and grow."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpips.fabric import ArenaFull
from mpips.kernels.header import LOCATION
from mpips.server.shards import NotHeld
from tests.shards import grouped, pulled, shards_of, table

LAST = 2**64 - 1
EDGES = [0, 1, 2**63 - 1, 2**63, LAST - 2, LAST - 1, LAST]
KEYS = st.one_of(st.integers(0, LAST), st.sampled_from(EDGES))


def push(shards, keys, value):
    keys = grouped(shards.spec, keys)
    shards.push(keys, np.full((keys.size, shards.spec.width), value, shards.spec.dtype))


def found(shards):
    """Every key with its first value."""
    keys, values = shards.scan(0, None)
    assert len(set(keys.tolist())) == keys.size
    return dict(zip(keys.tolist(), values[:, 0].tolist(), strict=True))


@settings(max_examples=100)
@example([EDGES, EDGES, [LAST]])
@example([[LAST - 1], [LAST]])
@given(st.lists(st.lists(KEYS, max_size=60), max_size=6))
def test_any_64_bit_key_is_held_once_with_what_was_pushed(pushes):
    shards = shards_of(table(kind="sparse", rows=1))
    expected = {}
    for keys in pushes:
        push(shards, keys, 1.0)
        for key in set(keys):
            expected[key] = expected.get(key, 0.0) + 1.0
    assert found(shards) == expected
    asked = sorted({*expected, *EDGES, 12345})
    assert pulled(shards, asked)[:, 0].tolist() == [expected.get(key, 0.0) for key in asked]


@pytest.mark.parametrize(
    ("width", "dtype", "rule"), [(1, "float32", "add"), (3, "float32", "ftrl"), (3, "float64", "ftrl")]
)
def test_a_table_grows_by_a_hundred_times_and_loses_nothing(width, dtype, rule, rng):
    spec = table(kind="sparse", rows=10, width=width, dtype=dtype, rule={"name": rule})
    shards = shards_of(spec, 32 << 20)
    before = {int(shards._header(shard)[LOCATION]) for shard in shards.held}
    keys = np.unique(np.concatenate([rng.integers(0, 2**64, 20_000, np.uint64), np.array(EDGES, np.uint64)]))
    updates = rng.normal(size=(keys.size, width)).astype(dtype)
    order = rng.permutation(keys.size)
    for part in np.array_split(order, 7):
        now = grouped(spec, keys[part])
        shards.push(now, updates[np.searchsorted(keys, now)])
    assert before.isdisjoint(int(shards._header(shard)[LOCATION]) for shard in shards.held)
    single = shards_of(table(kind="dense", rows=keys.size, width=width, dtype=dtype, rule={"name": rule}), 32 << 20)
    single.push_range(0, keys.size, updates)
    np.testing.assert_array_equal(pulled(shards, keys), pulled(single, np.arange(keys.size)))
    rows = [shards.rows(shard) for shard in shards.held]
    at = np.searchsorted(keys, np.concatenate([row[0] for row in rows]))
    assert sorted(at.tolist()) == list(range(keys.size))
    states = np.concatenate([single.dense_rows(shard)[1] for shard in single.held])
    np.testing.assert_array_equal(np.concatenate([row[2] for row in rows]), states[at])


@settings(max_examples=50)
@given(keys=st.lists(KEYS, max_size=50), lo=KEYS, hi=st.one_of(st.none(), KEYS))
def test_a_scan_gives_the_keys_of_its_range(keys, lo, hi):
    shards = shards_of(table(kind="sparse", rows=1))
    push(shards, keys, 1.0)
    got, _ = shards.scan(lo, hi)
    assert sorted(got.tolist()) == sorted(key for key in set(keys) if lo <= key and (hi is None or key < hi))


@pytest.mark.parametrize("rule", ["add", "ftrl"])
def test_rows_put_back_are_as_they_were_taken_out_in_a_table_that_must_grow_for_them(rule, rng):
    spec = table(kind="sparse", rows=10, width=2, rule={"name": rule})
    old, new = shards_of(spec), shards_of(spec)
    push(old, [*rng.integers(0, 2**64, 3_000, np.uint64).tolist(), *EDGES], 0.7)
    new.load(old.rows(shard) for shard in old.held)
    for shard in old.held:
        before, after = old.rows(shard), new.rows(shard)
        order, again = np.argsort(before[0]), np.argsort(after[0])
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a[order], b[again])


def test_rows_of_shards_that_are_not_held_are_passed_over():
    spec = table(kind="sparse", rows=10)
    whole, half = shards_of(spec), shards_of(spec, hold=range(0, spec.shards, 2))
    push(whole, range(1_000), 1.0)
    half.load(whole.rows(shard) for shard in whole.held)
    expected = {int(key) for shard in range(0, spec.shards, 2) for key in whole.rows(shard)[0]}
    assert set(found(half)) == expected
    assert 300 < len(expected) < 700


def test_a_key_of_a_shard_that_is_not_held_is_refused_and_named():
    spec = table(kind="sparse", rows=10)
    shards = shards_of(spec, hold=[])
    with pytest.raises(NotHeld, match='table "w": key 17 is not held here'):
        push(shards, [17], 1.0)
    dense = shards_of(table(rows=5_000), hold=[0])
    with pytest.raises(NotHeld, match='table "w": row 4999 is not held here'):
        push(dense, [0, 4_999], 1.0)


def test_a_table_that_can_not_grow_says_so_and_keeps_what_it_has(rng):
    shards = shards_of(table(kind="sparse", rows=1), 65_536)
    push(shards, range(100), 1.0)
    with pytest.raises(ArenaFull):
        push(shards, rng.integers(0, 2**64, 5_000, np.uint64), 1.0)
    got = found(shards)
    assert all(got[key] == 1.0 for key in range(100))


def test_non_zeros_are_counted():
    shards = shards_of(table(kind="sparse", rows=10, width=2))
    shards.push(grouped(shards.spec, [3, 9]), np.array([[1, 0], [0, 0]], np.float32))
    assert shards.nonzeros() == 1
    dense = shards_of(table(rows=5_000))
    dense.push_range(10, 20, np.ones((10, 1), np.float32))
    assert dense.nonzeros() == 10
