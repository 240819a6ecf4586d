"""A table as linear algebra: what servers compute, and what a worker does with parts of it, as NumPy has it."""

import numba
import numpy as np
import pytest
from scipy import sparse

from mpips.dataserver.batch import Batch
from mpips.functions import FUNCTIONS, FunctionError, shard_function
from mpips.tasks import TaskRefused
from mpips.worker.keys import KeyRangeError
from mpips.worker.vector import Vector
from tests.simulated import PLACES, run, table

ROWS = 6_000
everywhere = pytest.mark.parametrize("place", PLACES)
kinds = pytest.mark.parametrize("kind", ["dense", "sparse"])


@pytest.fixture(scope="module", autouse=True)
def own_functions():
    """Shard functions of a user, for these tests alone."""

    @shard_function(reduce="sum")
    @numba.njit(nogil=True)
    def larger_than(keys, values, state, argument):
        return (values > argument[0]).sum()

    @shard_function(reduce=lambda replies: max(replies))
    @numba.njit(nogil=True)
    def last_key(keys, values, state, argument):
        return keys.max() if keys.size else np.uint64(0)

    @shard_function(reduce=lambda replies: "no number")
    @numba.njit(nogil=True)
    def words(keys, values, state, argument):
        return 1.0

    @shard_function(writes=True)
    @numba.njit(nogil=True)
    def add_to_all(keys, values, state, argument):
        values += np.float32(argument[0])
        return values.size

    yield
    for name in ("larger_than", "last_key", "words", "add_to_all"):
        del FUNCTIONS[name]


def table_of(kind, name="w", **settings):
    return table(name, kind=kind, rows=ROWS, rule={"name": "assign"}, **settings)


def content(kind, seed, width=1):
    """Keys (n,) and values (n, width) that a table is filled with: half of a dense one, any keys of a sparse one."""
    rng = np.random.default_rng(seed)
    if kind == "dense":
        keys = np.sort(rng.choice(ROWS, ROWS // 2, replace=False)).astype(np.uint64)
    else:
        keys = np.unique(rng.integers(0, 2**64, ROWS // 2, np.uint64))
    values = np.round(rng.normal(size=(keys.size, width)), 3).astype(np.float32)
    return keys, values[:, 0] if width == 1 else values


@everywhere
@kinds
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("servers", [1, 3])
def test_norms_counts_and_the_largest_entries_of_any_range_are_those_of_numpy(kind, width, servers, place, seed):
    def program(worker):
        keys, values = content(kind, seed, width)
        w = worker.table("w")
        w.push(keys, values).wait()
        middle, end = int(keys[keys.size // 3]), int(keys[keys.size // 2])
        failures = []
        for part in (slice(None), slice(middle, end), slice(None, middle), slice(middle, middle), range(middle, end)):
            lo, hi = part.start or 0, part.stop
            chosen = (keys >= np.uint64(lo)) & ((keys < np.uint64(hi)) if hi is not None else True)
            flat = values[chosen].astype(np.float64).ravel()
            got = w.norm(1, part), w.norm(2, part), w.norm(np.inf, part), w.nonzeros(part)
            wanted = np.abs(flat).sum(), np.sqrt(flat @ flat), np.abs(flat).max(initial=0.0), np.count_nonzero(flat)
            if not np.allclose(got, wanted, rtol=1e-9):
                failures.append(f"{part}: {got} instead of {wanted}")
            top = w.top(5, part)
            if width == 1:
                order = np.lexsort((keys[chosen], -np.abs(values[chosen])))[:5]
                if top["key"].tolist() != keys[chosen][order].tolist() or not (
                    np.allclose(top["value"], values[chosen][order])
                ):
                    failures.append(f"{part}: {top}")
        return failures, w.norm() == w.norm(2)

    job = run(program, table_of(kind, width=width), nodes=PLACES[place](2 + servers), servers=servers, seed=seed)
    assert job.results == [[[], True]]


@everywhere
@kinds
def test_a_function_of_the_user_runs_where_the_shards_are_and_its_replies_become_one(kind, place, seed):
    def program(worker):
        keys, values = content(kind, seed)
        w = worker.table("w")
        w.push(keys, values).wait()
        found = w.call("larger_than", argument=[0.5]).wait(), int(w.call("last_key").wait())
        changed = w.call("add_to_all", argument=[1.0]).wait()
        got = w.pull(keys).wait()
        assert np.allclose(got, values + 1)
        assert found[0] == np.count_nonzero(values > 0.5)
        assert found[1] == (ROWS - 1 if kind == "dense" else int(keys[-1]))
        assert changed == (ROWS if kind == "dense" else keys.size)
        return True

    assert run(program, table_of(kind), nodes=PLACES[place](4), servers=2, seed=seed).results == [True]


@everywhere
def test_calls_on_ranges_and_their_writes_stay_within_the_range(place, seed):
    def program(worker):
        w = worker.table("w")
        w.push(slice(None), np.ones(ROWS)).wait()
        w.call("fill", range(100, 4_000), [7.0]).wait()
        got = w.pull(slice(None)).wait()
        return [
            float(part) for part in (got[:100].max(), got[100:4_000].min(), got[100:4_000].max(), got[4_000:].max())
        ]

    assert run(program, table_of("dense"), nodes=PLACES[place](4), servers=2, seed=seed).results == [[1, 7, 7, 1]]


@everywhere
def test_what_is_wrong_with_a_call_is_said_and_the_table_goes_on(place):
    def program(worker):
        w = worker.table("w")
        with pytest.raises(FunctionError, match='"nonzero" does not exist; did you mean "nonzeros"'):
            w.call("nonzero")
        with pytest.raises(KeyRangeError, match="is not within"):
            w.call("nonzeros", range(ROWS + 1))
        with pytest.raises(ValueError, match="norms are of order 1, 2 or inf, got 3"):
            w.norm(3)
        with pytest.raises((FunctionError, TaskRefused), match="words"):
            w.call("words").wait()
        assert worker._fabric.space.used == 0
        return w.nonzeros()

    assert run(program, table_of("dense"), nodes=PLACES[place](4), servers=2).results == [0]


@everywhere
@kinds
def test_a_part_of_a_table_is_a_vector(kind, place, seed):
    def program(worker):
        keys, values = content(kind, seed)
        w = worker.table("w")
        w.push(keys, values).wait()
        some = keys[::3]
        parts = [w[some], w[w.keys(some)]]
        lo, hi = int(keys[10]), int(keys[200])
        ranged = w[lo:hi]
        held = (keys >= np.uint64(lo)) & (keys < np.uint64(hi))
        assert isinstance(ranged, Vector)
        for part in parts:
            np.testing.assert_array_equal(part.keys, some)
            np.testing.assert_array_equal(part.values, values[::3])
        np.testing.assert_array_equal(ranged[keys[held]].values, values[held])
        assert len(ranged) == (hi - lo if kind == "dense" else held.sum())
        assert ranged.keys[0] == lo
        return True

    assert run(program, table_of(kind), nodes=PLACES[place](4), servers=2, seed=seed).results == [True]


@everywhere
@kinds
def test_tables_are_added_and_subtracted_by_key(kind, place, seed):
    def program(worker):
        w, u = worker.table("w"), worker.table("u")
        (keys, values), (others, more) = content(kind, seed), content(kind, seed + 1)
        w.push(keys, values)
        u.push(others, more)
        worker.settle()
        every = np.union1d(keys, others)
        expected = Vector(keys, values)[every].values, Vector(others, more)[every].values
        np.testing.assert_array_equal((w + u)[every].values, expected[0] + expected[1])
        np.testing.assert_array_equal((w - u)[every].values, expected[0] - expected[1])
        np.testing.assert_array_equal((w + u[others])[every].values, expected[0] + expected[1])
        np.testing.assert_array_equal((w[keys] - u[others])[every].values, expected[0] - expected[1])
        assert not (w - w).nonzeros()
        return True

    tables = table_of(kind), table_of(kind, "u")
    assert run(program, *tables, nodes=PLACES[place](4), servers=2, seed=seed).results == [True]


@everywhere
@pytest.mark.parametrize("width", [1, 3])
def test_a_matrix_times_a_table_pulls_only_the_columns_that_occur(width, place, seed):
    def program(worker):
        keys, values = content("dense", seed, width)
        w, rng = worker.table("w"), np.random.default_rng(seed)
        w.push(keys, values).wait()
        whole = np.zeros((ROWS, width) if width > 1 else ROWS)
        whole[keys.astype(int)] = values
        pulled, pull = [], w.pull

        def note(keys):
            task = pull(keys)
            pulled.append(len(task.wait()))
            return task

        w.pull = note
        some = sparse.random(50, ROWS, 0.001, "csr", random_state=rng)
        np.testing.assert_allclose(some @ w, some @ whole, atol=1e-9)
        assert pulled == [np.unique(some.indices).size]
        np.testing.assert_allclose(some.tocoo() @ w, some @ whole, atol=1e-9)
        few = rng.normal(size=(4, 77))
        np.testing.assert_allclose(few @ w, few @ whole[:77])
        np.testing.assert_allclose(few[0] @ w[0:77], few[0] @ whole[:77])
        assert pulled[2:] == [77, 77]
        return True

    job = run(program, table_of("dense", width=width), nodes=PLACES[place](4), servers=2, seed=seed)
    assert job.results == [True]


@everywhere
@kinds
def test_a_batch_times_a_table_is_a_number_for_every_row(kind, place, seed):
    def program(worker):
        keys, values = content(kind, seed)
        w, rng = worker.table("w"), np.random.default_rng(seed)
        w.push(keys, values).wait()
        chosen = keys[np.sort(rng.choice(keys.size, 40, replace=False))]
        indptr = np.arange(0, 101, 5, dtype=np.int32)
        indices = np.concatenate([rng.choice(40, 5, replace=False) for _ in range(20)]).astype(np.int32)
        numbers = rng.normal(size=100).astype(np.float32)
        batch = Batch(chosen, indptr, indices, numbers, np.zeros(20, np.float32))
        weights = Vector(keys, values)[chosen].values
        expected = (numbers * weights[indices]).reshape(20, 5).sum(axis=1)
        np.testing.assert_allclose(batch @ w, expected, rtol=1e-4, atol=1e-5)
        return True

    assert run(program, table_of(kind), nodes=PLACES[place](4), servers=2, seed=seed).results == [True]
