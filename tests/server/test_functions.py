"""Shard functions on a server's shards: which rows they see, what they change, and what readers see meanwhile."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from mpips.functions import FUNCTIONS, FunctionError, reduce_replies, shard_function
from mpips.kernels import header
from mpips.server import functions
from mpips.server.shards import THREADED_ROWS
from tests.shards import grouped, pulled, shards_of, table

ROWS = 5_000
CASES = [
    (kind, dtype, width, threads)
    for kind in ("dense", "sparse")
    for dtype, width in (("float32", 1), ("float64", 3))
    for threads in (1, 2)
]
READING = {
    "sum_of_squares": ([], lambda v: (v**2).sum()),
    "sum_of_absolute_values": ([], lambda v: np.abs(v).sum()),
    "largest_absolute_value": ([], lambda v: np.abs(v).max(initial=0.0)),
    "nonzeros": ([], np.count_nonzero),
    "column_sums": ([], lambda v: v.sum(axis=0)),
}
WRITING = {
    "scale": ([-0.5], lambda v: v * -0.5),
    "fill": ([0.25], lambda v: np.full_like(v, 0.25)),
    "clip": ([-0.01, 0.02], lambda v: np.clip(v, -0.01, 0.02)),
    "soft_threshold": ([0.01], lambda v: np.sign(v) * np.maximum(np.abs(v) - 0.01, 0)),
    "shrink": ([0.5], lambda v: v / 1.5),
    "hard_threshold": ([0.01], lambda v: np.where(np.abs(v) < 0.01, 0, v)),
}


def run(shards, name, lo, hi, argument):
    """Run a function on all shards that are led."""
    return functions.run(shards, shards.led, name, lo, hi, argument)


@pytest.fixture(autouse=True)
def small_tables_are_worth_threads(monkeypatch):
    monkeypatch.setattr("mpips.server.functions.THREADED_ROWS", 0)


@pytest.fixture
def own_functions():
    before = dict(FUNCTIONS)
    yield
    FUNCTIONS.clear()
    FUNCTIONS.update(before)


def filled(rng, kind="dense", dtype="float32", width=1, threads=1, rows=ROWS, **settings):
    """A table that got a push, and its keys, values and state in the order of the keys."""
    spec = table(kind=kind, rows=rows, width=width, dtype=dtype, rule={"name": "ftrl"})
    shards = shards_of(spec, 64 << 20, threads, **settings)
    keys = np.arange(rows, dtype=np.uint64)
    if kind == "sparse":
        keys = np.append(np.sort(rng.choice(2**40, rows - 1, replace=False).astype(np.uint64)), np.uint64(2**64 - 1))
    mine = grouped(spec, keys)
    if "hold" not in settings:
        shards.push(mine, rng.normal(size=(mine.size, width)).astype(dtype))
    return shards, keys, *held(shards, keys)


def held(shards, keys):
    """Values (n, width) and state (n, width, slots) of keys, all of which are held."""
    if shards.spec.kind == "dense":
        parts = [shards.dense_rows(shard) for shard in shards.held]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    parts = [np.concatenate(part) for part in zip(*(shards.rows(shard) for shard in shards.held), strict=True)]
    order = np.argsort(parts[0])
    np.testing.assert_array_equal(parts[0][order], keys)
    return parts[1][order], parts[2][order]


def ranges(keys):
    """Ranges of all, some, one and no keys, as bounds and a mask."""
    lo, hi = int(keys[keys.size // 4]), int(keys[-keys.size // 4])
    for a, b in ((0, None), (lo, hi), (lo, None), (0, hi), (lo, lo + 1), (lo, lo)):
        yield a, b, (keys >= np.uint64(a)) & (keys < np.uint64(b) if b is not None else True)


def versions(shards):
    return [int(shards._header(shard)[header.VERSION]) for shard in shards.held]


# --- the built-in functions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "dtype", "width", "threads"), CASES)
def test_a_function_that_reads_sees_the_rows_of_the_range_and_no_other(kind, dtype, width, threads, rng):
    shards, keys, values, state = filled(rng, kind, dtype, width, threads)
    before = versions(shards)
    for lo, hi, within in ranges(keys):
        for name, (argument, reference) in READING.items():
            expected = reference(values[within].astype(np.float64))
            np.testing.assert_allclose(run(shards, name, lo, hi, argument), expected, rtol=1e-9, atol=1e-9)
        above = run(shards, "above", lo, hi, [0, 0.5])
        np.testing.assert_array_equal(above, keys[within & (state[:, :, 0] > 0.5).any(axis=1)])
        size = np.abs(values).max(axis=1)
        top = run(shards, "top_k", lo, hi, [100])
        order = np.lexsort((keys[within], -size[within]))[:100]
        np.testing.assert_array_equal(top["key"], keys[within][order])
        np.testing.assert_array_equal(np.abs(top["value"]), size[within][order])
    assert versions(shards) == before
    np.testing.assert_array_equal(held(shards, keys)[0], values)


@pytest.mark.parametrize(("kind", "dtype", "width", "threads"), CASES)
@pytest.mark.parametrize("name", WRITING)
def test_a_function_that_writes_changes_the_rows_of_the_range_and_no_other(name, kind, dtype, width, threads, rng):
    shards, keys, values, state = filled(rng, kind, dtype, width, threads)
    argument, reference = WRITING[name]
    for lo, hi, within in ranges(keys):
        expected = values.copy()
        expected[within] = reference(values[within].astype(np.float64))
        assert run(shards, name, lo, hi, argument) == np.count_nonzero(expected != values)
        values, new_state = held(shards, keys)
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(new_state, state)
        np.testing.assert_array_equal(pulled(shards, keys), expected)
    assert all(version % 2 == 0 for version in versions(shards))


@given(lo=st.integers(0, ROWS), n=st.integers(0, ROWS), dead=st.integers(0, 2**31))
def test_what_several_servers_reply_reduces_to_the_whole(lo, n, dead):
    rng = np.random.default_rng(dead)
    spec = table(rows=ROWS)
    mine = rng.random(spec.shards) < 0.5
    servers = [shards_of(spec, hold=np.flatnonzero(which)) for which in (mine, ~mine)]
    for server in servers:
        server.push_range(0, ROWS, np.arange(ROWS, dtype=np.float32)[:, np.newaxis])
    hi = min(lo + n, ROWS)
    for name, argument, expected in (
        ("column_sums", [], [sum(range(lo, hi))]),
        ("largest_absolute_value", [], max(hi - 1, 0) if hi > lo else 0),
        ("top_k", [7], [(row, row) for row in range(hi - 1, max(lo, hi - 7) - 1, -1)]),
    ):
        replies = [run(server, name, lo, hi, argument) for server in servers]
        assert np.asarray(reduce_replies(name, replies, argument)).tolist() == expected


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_large_table_gives_the_same_to_the_bit_with_any_number_of_threads(kind, rng, seed):
    got = []
    for threads in (1, 2, 5):
        shards, keys, *_ = filled(np.random.default_rng(seed), kind, threads=threads, rows=2 * THREADED_ROWS)
        replies = [run(shards, "scale", 1000, None, [0.3]), run(shards, "sum_of_squares", 1000, None, [])]
        got.append((replies, run(shards, "top_k", 0, None, [50]).tolist(), pulled(shards, keys).tobytes()))
    assert got[0] == got[1] == got[2]


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_range_without_rows_has_the_reply_to_no_rows(kind, rng):
    empty = shards_of(table(kind=kind, rows=ROWS), hold=[])
    assert run(empty, "sum_of_squares", 0, None, []) == 0.0
    assert run(empty, "top_k", 0, None, [3]).shape == (0,)
    assert run(empty, "fill", 0, None, [1.0]) == 0


@pytest.mark.parametrize(("dtype", "width", "threads"), [("float32", 1, 1), ("float64", 3, 2)])
@given(lo=st.integers(0, ROWS), n=st.integers(0, ROWS))
def test_a_dot_product_takes_the_numbers_of_its_own_rows(dtype, width, threads, lo, n):
    rng = np.random.default_rng(lo)
    shards, _, values, _ = filled(rng, "dense", dtype, width, threads)
    hi = min(ROWS, lo + n)
    numbers = rng.normal(size=(hi - lo, width))
    found = run(shards, "dot", lo, hi, numbers.reshape(-1))
    assert found == pytest.approx((values[lo:hi] * numbers).sum(), rel=1e-9, abs=1e-9)


def test_one_number_is_an_argument():
    shards = shards_of(table(rows=ROWS))
    assert run(shards, "fill", 0, None, 2) == ROWS
    assert pulled(shards, [0, ROWS - 1])[:, 0].tolist() == [2.0, 2.0]


# --- users' functions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "dtype", "width", "threads"), CASES)
def test_a_users_function_gets_keys_values_and_state_that_belong_together(
    kind, dtype, width, threads, rng, own_functions
):
    @shard_function(reduce="concat")
    @njit(nogil=True)
    def everything(keys, values, state, argument):
        out = np.empty((keys.size, 2 + 3 * values.shape[1]))
        for i in range(keys.size):
            out[i, 0] = keys[i] % 2**32
            out[i, 1] = argument[1]
            for j in range(values.shape[1]):
                out[i, 2 + 3 * j] = values[i, j]
                out[i, 3 + 3 * j : 5 + 3 * j] = state[i, j]
        return out

    shards, keys, values, state = filled(rng, kind, dtype, width, threads)
    for lo, hi, within in ranges(keys):
        got = run(shards, "everything", lo, hi, [3.0, 7.0])
        n = np.count_nonzero(within)
        expected = np.concatenate(
            [
                (keys[within] % 2**32).reshape(n, 1),
                np.full((n, 1), 7.0),
                np.concatenate([values[within][:, :, np.newaxis], state[within]], axis=2).reshape(n, 3 * width),
            ],
            axis=1,
        )
        if kind == "sparse":
            got, expected = (rows[np.lexsort(rows.T)] for rows in (got, expected))
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_users_function_may_change_state(kind, rng, own_functions):
    @shard_function(writes=True)
    @njit
    def forget(keys, values, state, argument):
        state[:, :, 1] = 0.0
        values += 1.0
        return keys.size

    shards, keys, values, state = filled(rng, kind)
    hi = int(keys[10])
    assert run(shards, "forget", 0, hi, []) == 10
    state[:10, :, 1] = 0.0
    values[:10] += 1.0
    np.testing.assert_array_equal(held(shards, keys)[0], values)
    np.testing.assert_array_equal(held(shards, keys)[1], state)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_function_that_has_not_said_that_it_writes_can_not(kind, rng, own_functions):
    @shard_function()
    @njit
    def careless(keys, values, state, argument):
        values[0] = 1.0
        return 0.0

    shards, keys, values, _ = filled(rng, kind)
    with pytest.raises(FunctionError, match=r'"careless" does not compile in numba: .*Cannot modify readonly array'):
        run(shards, "careless", 0, None, [])
    np.testing.assert_array_equal(held(shards, keys)[0], values)


def test_a_function_can_not_change_keys(own_functions):
    @shard_function(writes=True)
    @njit
    def keyed(keys, values, state, argument):
        keys[0] = 1
        return 0.0

    with pytest.raises(FunctionError, match="Cannot modify readonly array"):
        run(shards_of(table(kind="sparse")), "keyed", 0, None, [])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda keys, values, state, argument: values.nope, "Unknown attribute 'nope' of type"),
        (lambda keys, values, state, argument: values + "text", r"add\(array\(float32, 2d, C\), "),
    ],
)
def test_a_function_that_does_not_compile_is_an_error_of_one_line(body, reason, own_functions):
    body.__name__ = "broken"
    shard_function(writes=True)(njit(body))
    shards = shards_of(table(rows=ROWS))
    with pytest.raises(FunctionError, match=f'^shard function "broken" does not compile in numba: .*{reason}') as error:
        run(shards, "broken", 0, None, [])
    assert "\n" not in str(error.value)
    assert versions(shards) == [0] * len(shards.held)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_function_that_fails_says_why_and_leaves_every_shard_at_rest(kind, threads, rng, own_functions):
    @shard_function(writes=True)
    @njit(nogil=True)
    def fussy(keys, values, state, argument):
        for i in range(keys.size):
            values[i] = 9.0
            if keys[i] == np.uint64(argument[0]):
                raise ValueError("not this key")
        return 0.0

    shards, keys, values, _ = filled(rng, kind, threads=threads, rows=2 * THREADED_ROWS)
    with pytest.raises(FunctionError, match=r'^shard function "fussy" failed on table "w": not this key$'):
        run(shards, "fussy", 0, None, [float(keys[100])])
    assert all(version % 2 == 0 for version in versions(shards))
    if kind == "sparse":
        shard = next(s for s in shards.held if keys[100] in shards.rows(s)[0])
        got_keys, got, _ = shards.rows(shard)
        np.testing.assert_array_equal(got, values[np.searchsorted(keys, got_keys)])


def test_nobody_writes_any_more_once_a_failure_is_known(own_functions):
    def uneven(keys, values, state, argument):
        if 0 in keys:
            raise ValueError("not this key")
        if keys.size:
            time.sleep(0.1)
        return 0.0

    uneven.py_func = uneven
    shard_function(writes=True)(uneven)
    shards = shards_of(table(rows=ROWS), threads=2)
    with pytest.raises(FunctionError, match="not this key"):
        run(shards, "uneven", 0, 2 * shards.spec.shard_rows, [])
    assert versions(shards)[:3] == [2, 2, 0]


def test_a_built_in_function_with_a_wrong_argument_says_what_it_needs():
    with pytest.raises(FunctionError, match=r'^shard function "scale" failed on table "w": its argument must be'):
        run(shards_of(table()), "scale", 0, None, [])


def test_a_function_that_replies_with_nothing_is_refused(own_functions):
    @shard_function()
    @njit
    def silent(keys, values, state, argument):
        pass

    with pytest.raises(FunctionError, match=r'"silent" must reply with a number, or an array .*, got None'):
        run(shards_of(table()), "silent", 0, None, [])


def test_a_function_that_does_not_exist_is_told_the_nearest():
    with pytest.raises(FunctionError, match='did you mean "scale"'):
        run(shards_of(table()), "scales", 0, None, [1.0])


# --- readers meanwhile ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [True, False])
def test_readers_see_an_odd_version_while_a_dense_shard_is_written_and_only_then(writes, own_functions):
    entered, go_on = threading.Event(), threading.Event()

    def slow(keys, values, state, argument):
        if keys.size:
            entered.set()
            go_on.wait(10)
        return 0.0

    slow.py_func = slow  # passes for numba's, which could only spin
    shard_function(writes=writes)(slow)
    shards = shards_of(table(rows=ROWS))
    caller = threading.Thread(target=run, args=(shards, "slow", 0, 10, []))
    caller.start()
    assert entered.wait(10)
    meanwhile = versions(shards)
    go_on.set()
    caller.join(10)
    others = [0] * (len(shards.held) - 1)
    assert meanwhile == [int(writes), *others]
    assert versions(shards) == [2 * int(writes), *others]


def test_readers_see_an_odd_version_while_a_sparse_shard_is_written_back(rng, monkeypatch):
    shards, keys, *_ = filled(rng, "sparse")
    load, seen = shards.load, []

    def watched(blocks):
        seen.append([version % 2 for version in versions(shards)])
        load(blocks)

    monkeypatch.setattr(shards, "load", watched)
    before = versions(shards)
    run(shards, "fill", 0, None, [1.0])
    assert seen == [[int(at == shard) for at in range(len(before))] for shard in range(len(before))]
    assert versions(shards) == [version + 2 for version in before]
    assert shards.nonzeros() == keys.size
