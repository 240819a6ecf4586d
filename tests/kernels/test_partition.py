from itertools import pairwise

import numpy as np
import pytest

from mpips.kernels.partition import group, places, shard_of, shard_starts
from tests.shards import grouped, table


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("servers", [1, 3, 7])
def test_keys_are_grouped_by_server_and_within_by_shard_in_their_order(kind, servers, rng):
    spec = table(kind=kind, rows=100_000)
    keys = np.sort(rng.choice(100_000, 3_000, replace=False)).astype(np.uint64)
    server_of = rng.integers(0, servers, spec.shards)
    shards = np.array([shard_of(key, kind == "dense", spec.shard_bits) for key in keys])
    order, bounds = group(keys, kind == "dense", spec.shard_bits, server_of, servers)
    np.testing.assert_array_equal(order, np.lexsort((np.arange(keys.size), shards, server_of[shards])))
    np.testing.assert_array_equal(bounds, np.searchsorted(np.sort(server_of[shards]), np.arange(servers + 1)))


def test_no_keys_have_empty_groups():
    order, bounds = group(np.empty(0, np.uint64), True, 10, np.zeros(4, np.int64), 2)
    assert order.size == 0
    assert bounds.tolist() == [0, 0, 0]


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [0, 1, 5, 2_000])
def test_parts_share_no_shard_and_hold_every_key_once(parts, n, rng):
    keys = np.sort(rng.choice(100_000, n, replace=False)).astype(np.uint64)
    cuts = shard_starts(keys, True, 12, parts)
    assert cuts.size == parts + 1
    assert (cuts[0], cuts[-1]) == (0, n)
    assert (np.diff(cuts) >= 0).all()
    pieces = [set((keys[a:b] >> np.uint64(12)).tolist()) for a, b in pairwise(cuts.tolist())]
    assert sum(map(len, pieces)) == len(set().union(*pieces))
    if n == 2_000 and parts <= 3:
        assert max(np.diff(cuts)) < 1.5 * n / parts  # about equal


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("n", [0, 1, 2, 3_000])
def test_a_key_is_found_where_it_stands_in_a_push(kind, n, rng):
    spec = table(kind=kind, rows=100_000)
    keys = grouped(spec, rng.choice(100_000, n, replace=False))
    wanted = np.concatenate([keys[::7], rng.integers(0, 100_000, 100).astype(np.uint64)])
    where = {key: i for i, key in enumerate(keys.tolist())}
    found = places(keys, wanted, kind == "dense", spec.shard_bits)
    assert found.tolist() == [where.get(key, -1) for key in wanted.tolist()]
