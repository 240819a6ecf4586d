"""Whole jobs over MPI: push and pull on shared windows and through Rget; under mpirun -n 4."""

import numpy as np
import pytest

from mpips.views.view import Roles
from tests.simulated import program_plan, table

pytestmark = pytest.mark.mpi(min_size=4)

ROWS = 30_000
EDGES = [0, 1, 2**63, 2**64 - 2, 2**64 - 1]


def roles(size):
    return Roles(servers=2, data_servers=0, workers=size - 3)


def finished(live, program, *tables, **settings):
    """The results of the programs, which must all have gone well, on every rank's word."""
    from mpi4py import MPI

    outcome = live(program_plan(program, *tables, roles=roles(MPI.COMM_WORLD.size), **settings))
    assert outcome.exit == "finished", outcome.reason
    return outcome.results


@pytest.mark.parametrize(("width", "dtype"), [(1, "float32"), (3, "float64")])
def test_a_dense_table_is_an_array(live, width, dtype):
    def program(worker):
        w = worker.table("w")
        rng = np.random.default_rng(worker.index)
        mine = np.zeros((ROWS, width), dtype)
        for _ in range(20):
            lo, hi = np.sort(rng.integers(0, ROWS + 1, 2)).tolist()
            keys = np.sort(rng.choice(ROWS, int(rng.integers(0, 2_000)), replace=False))
            for where, n in ((range(lo, hi), hi - lo), (keys, keys.size)):
                values = rng.integers(-9, 9, (n, width)).astype(dtype)
                w.push(where, values[:, 0] if width == 1 else values)
                mine[where] += values
        worker.settle()
        if worker.count == 1:
            for consistent in (False, True):
                np.testing.assert_array_equal(
                    w.pull(slice(None), consistent=consistent).wait().reshape(ROWS, width), mine
                )
            keys = np.sort(rng.choice(ROWS, 5_000, replace=False))
            np.testing.assert_array_equal(w.pull(keys).wait().reshape(-1, width), mine[keys])
        return float(np.abs(mine).sum())

    results = finished(live, program, table(rows=ROWS, width=width, dtype=dtype))
    assert all(result > 0 for result in results)


def test_a_sparse_table_is_a_dictionary_of_any_key(live):
    def program(worker):
        s = worker.table("s")
        rng = np.random.default_rng(5)
        expected = {}
        for _ in range(10):
            keys = np.unique(np.concatenate([rng.integers(0, 2**64, 2_000, np.uint64), np.array(EDGES, np.uint64)]))
            s.push(keys, np.ones(keys.size))
            for key in keys.tolist():
                expected[key] = expected.get(key, 0) + worker.count
        s.settle()
        if worker.count == 1:
            keys, values = s.pull(slice(None)).wait()
            assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == expected
            np.testing.assert_array_equal(s.pull(keys).wait(), values)
        return len(expected)

    assert all(result > 15_000 for result in finished(live, program, table("s", kind="sparse", rows=10)))


def test_pulls_keep_to_the_delay(live):
    def program(worker):
        w = worker.table("w")
        behind = 0
        for i in range(1, 200):
            w.push([3 + 1_000 * worker.index], [1.0])
            behind = max(behind, i - int(w.pull([3 + 1_000 * worker.index]).wait()[0]))
        return behind

    assert all(0 <= behind <= 2 for behind in finished(live, program, table(), delay=2))


def test_a_push_after_another_is_not_lost_to_a_younger_one(live):
    def program(worker):
        a, b = worker.table("a"), worker.table("b")
        first = worker.index * 100
        for _ in range(20):
            slow = b.push(slice(None), np.ones(ROWS))
            a.push([first + 1], [1.0], after=[slow])
            a.push([first + 2], [1.0])
        worker.settle()
        return a.pull([first + 1, first + 2]).wait().tolist()

    assert all(result == [20.0, 20.0] for result in finished(live, program, table("a"), table("b", rows=ROWS)))


def test_a_worker_that_fails_ends_the_job_on_every_rank(live):
    def program(worker):
        worker.table("w").push([3], [np.inf])

    from mpi4py import MPI

    outcome = live(program_plan(program, table(), roles=roles(MPI.COMM_WORLD.size)))
    assert outcome.exit == "failed"
    assert "1 of 1 values are NaN or infinite, the first at key 3" in outcome.reason
