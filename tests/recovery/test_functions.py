"""Servers die while functions run on shards: one that writes counts once, one that reads is asked again."""

import numba
import numpy as np
import pytest

from mpips import function, shard_function
from mpips.functions import FUNCTIONS
from mpips.tasks import TaskLost
from mpips.views.view import Roles
from tests.recovery.test_lock_step import beyond, contents
from tests.simulated import FAST, PLACES, SimulatedJob, program_plan, table

ROWS, TURNS = 3000, 30
everywhere = pytest.mark.parametrize("place", PLACES)


@shard_function(writes=True)
@numba.njit(nogil=True)
def add_to_all(keys, values, state, argument):
    """Add a number to every value; how many there are."""
    values += argument[0]
    return float(keys.size)


ADD_TO_ALL = FUNCTIONS.pop("add_to_all")  # known in these tests alone


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(FUNCTIONS, "add_to_all", ADD_TO_ALL)


def program(worker):
    """Pushes and functions in turn, which do not commute: 2 · (value + 1), over and over, until it would overflow."""
    dense, sparse = worker.table("d"), worker.table("s")
    keys = np.arange(40, dtype=np.uint64) * 9973
    sums = []
    for turn in range(TURNS):
        if worker.index == 0:
            dense.push(range(ROWS), np.ones(ROWS))
            dense.call("scale", argument=[2.0])
            dense.call("scale", range(500, 2500), argument=[0.5])
            sparse.push(keys, np.ones(keys.size))
            sparse.call("scale", argument=[2.0])
            dense.call("add_to_all", range(turn, ROWS), argument=[1.0])
        else:
            dense.push(range(ROWS), np.zeros(ROWS))
        if turn % 4 == 3:
            worker.settle()
            worker.sum(1.0).wait()
            sums.append([dense.call("sum_of_absolute_values").wait(), sparse.call("sum_of_absolute_values").wait()])
            worker.sum(1.0).wait()
    worker.settle()
    worker.sum(1.0).wait()
    return sums


def due():
    """What the tables hold in the end."""
    dense, sparse, sums = np.zeros(ROWS), np.zeros(40), []
    for turn in range(TURNS):
        dense = 2 * (dense + 1)
        dense[500:2500] /= 2
        dense[turn:] += 1
        sparse = 2 * (sparse + 1)
        if turn % 4 == 3:
            sums.append([dense.sum(), sparse.sum()])
    return dense, sparse, sums


@everywhere
@pytest.mark.parametrize("replicas", [1, 2])
def test_functions_that_write_count_once_and_in_their_order(place, replicas, rng):
    roles = Roles(servers=3, data_servers=0, workers=2, spares=2)
    tables = (
        table("d", rows=ROWS, dtype="float64", rule={"name": "add"}),
        table("s", kind="sparse", rows=3000, dtype="float64", rule={"name": "add"}),
    )
    plan = program_plan(program, *tables, roles=roles, replicas=replicas, copy_share=1.0)
    latency = FAST if rng.random() < 0.5 else (1e-5, 1e-3)
    job = SimulatedJob(plan, PLACES[place](8), int(rng.integers(1 << 30)), latency=latency)
    for victim in rng.permutation([*job.view.servers, *job.view.spares])[: rng.integers(1, 2 + replicas)].tolist():
        if rng.random() < 0.5:
            job.simulation.kill(victim, float(rng.uniform(0, 0.03)))
        else:
            job.simulation.kill_at_message(victim, int(rng.integers(1, 300)))
    job.run(limit=300)
    if beyond(job):
        return
    assert job.outcome.exit == "finished", job.outcome.reason
    dense, sparse, sums = due()
    assert job.outcome.results == [sums, sums]
    found = contents(job)
    assert (
        np.concatenate([part for (name, _), part in sorted(found.items()) if name == "d"])[:, 0].tolist()
        == dense.tolist()
    )
    rows = sorted(row for (name, _), part in found.items() if name == "s" for row in part)
    assert [value for _, (value,) in rows] == sparse.tolist()


@function
def reply_late(role, argument):
    """On all workers but the first, replies when that one has pushed, too: never."""
    return role.table("slow").push([0], [1.0]) if argument is None and role.index > 0 else argument


def test_a_call_to_a_rank_that_dies_fails_and_names_it(seed):
    """Calls to others go on, and so do calls to whoever has its place."""
    found = {}

    def caller(worker):
        if worker.index > 0:
            worker.idle(lambda: "over" in found, timeout=30)
            return
        task = worker.call("workers", "reply_late")
        after = worker.call("workers", "reply_late", 5, after=[task])
        with pytest.raises(TaskLost) as caught:
            task.wait()
        with pytest.raises(TaskLost):
            after.wait()
        found["error"] = str(caught.value)
        found["over"] = worker.call("workers", "reply_late", 7).wait()
        worker.table("slow").settle()

    plan = program_plan(
        caller,
        table("slow", rows=10, aggregate=True),
        roles=Roles(servers=1, data_servers=0, workers=2, spares=1),
    )
    job = SimulatedJob(plan, PLACES["nodes of their own"](5), seed)
    victim = job.view.workers[1]
    job.simulation.kill(victim, 0.02)
    job.run(limit=200)
    assert job.outcome.exit == "finished", job.outcome.reason
    assert f"rank {victim} died" in found["error"]
    assert "reply_late" in found["error"]
    assert found["over"] == [7, 7]
