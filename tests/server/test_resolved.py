"""Key lists that come again: looked up once, applied as ever, and forgotten when a shard moves."""

import numpy as np
import pytest

from mpips.server import resolved
from mpips.server.resolved import Resolved
from tests.shards import grouped, pulled, shards_of, table

RULES = [{"name": "add"}, {"name": "ftrl", "alpha": 0.5, "l1": 0.1}]


def fixed(keys):
    """A list as the filter that caches key lists gives it: read-only."""
    keys.flags.writeable = False
    return keys


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["name"])
@pytest.mark.parametrize("width", [1, 3])
def test_known_lists_are_applied_as_unknown_ones_are(rule, width, threads, rng):
    spec = table(kind="sparse", rows=500, width=width, rule=rule)
    known, unknown = (shards_of(spec, 64 << 20, threads) for _ in range(2))
    lists = [grouped(spec, rng.integers(0, 2**63, size)) for size in (1, 40, 900, 40_000)]
    for _ in range(4):  # the shards grow meanwhile
        for keys in lists:
            updates = rng.normal(size=(keys.size, width)).astype(np.float32)
            unknown.push(keys.copy(), updates)
            known.push(fixed(keys), updates)
    for keys in lists:
        np.testing.assert_array_equal(pulled(known, keys), pulled(unknown, keys))


def test_a_list_is_looked_up_again_when_a_shard_has_moved(rng):
    spec = table(kind="sparse", rows=64)
    shards = shards_of(spec)
    keys = fixed(grouped(spec, rng.integers(0, 2**63, 50)))
    for _ in range(2):
        shards.push(keys, np.ones((keys.size, 1), np.float32))
    before = shards._resolved.rows(keys).copy()
    others = grouped(spec, rng.integers(0, 2**63, 20_000))
    shards.push(others, np.ones((others.size, 1), np.float32))
    shards.push(keys, np.ones((keys.size, 1), np.float32))
    assert (shards._resolved.rows(keys) != before).any()
    assert (pulled(shards, keys) == 3.0).all()


def test_a_list_is_found_once_and_those_used_longest_ago_make_room(monkeypatch):
    monkeypatch.setattr(resolved, "MOST_KEYS", 25)
    found = []
    rows = Resolved(lambda keys, out: found.append(keys[0]) or 0)
    lists = [fixed(np.full(10, i, np.uint64)) for i in range(3)]
    for i in (0, 1, 0, 2, 0, 1):
        assert rows.rows(lists[i]).size == 10
    assert found == [0, 1, 2, 1]


def test_a_list_that_may_change_or_has_a_new_key_is_not_kept():
    rows = Resolved(lambda keys, out: int(keys[0]))
    assert rows.rows(np.zeros(3, np.uint64)) is None
    assert rows.rows(fixed(np.ones(3, np.uint64))) is None
    assert rows.rows(fixed(np.zeros(3, np.uint64))) is not None
