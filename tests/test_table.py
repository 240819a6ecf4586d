from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels.partition import shard_of
from mpips.rule import fitted
from mpips.table import HEADER_BYTES, LEAST_SHARDS, MIN_SHARD_BYTES, SHARD_BYTES, TableSpec, header_offsets

WIDTHS = st.integers(1, 5_000)
DTYPES = st.sampled_from(["float32", "float64"])


@given(rows=st.integers(1, 10**7), width=WIDTHS, dtype=DTYPES)
def test_the_shards_of_a_dense_table_hold_every_row_once(rows, width, dtype):
    table = TableSpec(name="w", rows=rows, width=width, dtype=dtype)
    ends = [
        table.shard_range(shard)
        for shard in sorted({0, 1, table.shards // 2, table.shards - 1} & {*range(table.shards)})
    ]
    assert ends[0][0] == 0
    assert ends[-1][1] == rows
    assert all(lo < hi for lo, hi in ends)
    assert sum(table.shard_range(s)[1] - table.shard_range(s)[0] for s in range(table.shards)) == rows
    assert all(table.shard_range(s)[1] == table.shard_range(s + 1)[0] for s in range(min(100, table.shards - 1)))


@given(rows=st.integers(1, 10**9), width=WIDTHS, dtype=DTYPES)
def test_a_shard_of_a_large_table_has_half_to_one_megabyte_and_a_small_table_has_sixteen_or_more(rows, width, dtype):
    table = TableSpec(name="w", rows=rows, width=width, dtype=dtype)
    size = table.shard_rows * table.row_bytes
    assert size <= SHARD_BYTES
    if rows * table.row_bytes >= 2 * LEAST_SHARDS * SHARD_BYTES:
        assert size > SHARD_BYTES // 2
    elif size > MIN_SHARD_BYTES and rows >= LEAST_SHARDS:
        assert table.shards >= LEAST_SHARDS


def test_a_row_wider_than_a_megabyte_is_a_shard_of_its_own():
    table = TableSpec(name="w", rows=7, width=1_000_000)
    assert (table.shards, table.shard_rows) == (7, 1)


@given(rows=st.integers(1, 10**6), row=st.floats(0, 1, exclude_max=True))
def test_a_row_lies_in_the_range_of_its_shard(rows, row):
    table = TableSpec(name="w", rows=rows)
    key = int(row * rows)
    lo, hi = table.shard_range(int(shard_of(np.uint64(key), True, table.shard_bits)))
    assert lo <= key < hi


@given(rows=st.integers(1, 10**8), keys=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_any_key_has_a_shard_of_a_sparse_table(rows, keys):
    table = TableSpec(name="s", kind="sparse", rows=rows)
    for key in keys:
        assert 0 <= shard_of(np.uint64(key), False, table.shard_bits) < table.shards


@pytest.mark.parametrize("rows", [1, 1_000, 10**6, 10**8])
def test_the_expected_keys_of_a_sparse_shard_take_at_most_a_megabyte(rows):
    table = TableSpec(name="s", kind="sparse", rows=rows)
    assert table.shards >= LEAST_SHARDS
    assert rows / table.shards * table.row_bytes <= SHARD_BYTES


def test_the_headers_of_all_tables_stand_one_after_the_other():
    tables = [TableSpec(name="a", rows=10**6), TableSpec(name="b", kind="sparse", rows=10), TableSpec(name="c", rows=1)]
    offsets = header_offsets(tables)
    assert offsets[0] == 0
    assert [b - a for a, b in pairwise(offsets)] == [HEADER_BYTES * t.shards for t in tables]


@pytest.mark.parametrize(("name", "slots", "inputs"), [("add", 0, 1), ("ftrl", 2, 1), ("proximal", 2, 2)])
@pytest.mark.parametrize("width", [1, 3])
def test_a_push_has_as_many_numbers_for_each_value_as_the_rule_takes(name, slots, inputs, width):
    table = fitted(TableSpec(name="w", rows=10, width=width, rule={"name": name}))
    assert (table.slots, table.inputs) == (slots, inputs)
    assert table.push_width == width * inputs
    assert table.row_bytes == 4 * width  # what is pulled


@given(rows=st.integers(1, 10**6))
def test_clocks_count_the_rows_of_a_dense_table_and_the_shards_of_a_sparse_one(rows):
    assert TableSpec(name="w", rows=rows).positions == rows
    sparse = TableSpec(name="w", kind="sparse", rows=rows)
    assert sparse.positions == sparse.shards
