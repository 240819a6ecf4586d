"""A push that several kernels apply at once, each to shards of its own."""

import numpy as np
import pytest

from mpips.server.shards import THREADED_ROWS
from tests.shards import grouped, pulled, shards_of, table


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("rule", ["add", "ftrl"])
def test_a_large_push_gives_the_same_to_the_bit_with_any_number_of_threads(kind, rule, rng):
    rows = 4 * THREADED_ROWS
    spec = table("w", kind=kind, rows=rows, rule={"name": rule})
    keys = grouped(spec, rng.choice(rows, 3 * THREADED_ROWS, replace=False))
    pushes = [rng.normal(size=(keys.size, 1)).astype(np.float32) for _ in range(2)]
    values = []
    for threads in (1, 2, 5):
        shards = shards_of(spec, 64 << 20, threads)
        for updates in pushes:
            shards.push(keys, updates)
        values.append(pulled(shards, np.sort(keys)).tobytes())
    assert values[0] == values[1] == values[2]


def test_a_large_range_gives_the_same_to_the_bit_with_any_number_of_threads(rng):
    rows = 4 * THREADED_ROWS
    spec = table("w", rows=rows, rule={"name": "adagrad"})
    updates = rng.normal(size=(rows - 1000, 1)).astype(np.float32)
    values = []
    for threads in (1, 4):
        shards = shards_of(spec, 64 << 20, threads)
        shards.push_range(700, rows - 300, updates)
        values.append(pulled(shards, np.arange(rows)).tobytes())
    assert values[0] == values[1]


def test_a_sparse_table_grows_while_several_threads_push(rng):
    spec = table("w", kind="sparse", rows=100)
    keys = grouped(spec, rng.integers(0, 2**63, 3 * THREADED_ROWS))
    shards = shards_of(spec, 64 << 20, threads=4)
    shards.push(keys, np.ones((keys.size, 1), np.float32))
    assert pulled(shards, keys).sum() == keys.size
    assert shards.nonzeros() == keys.size
