"""Workers that run a program together die: a spare runs it again as the first would have, or the others go on."""

import json

import numpy as np
import pytest

from mpips.algorithms.linear.block import solve
from mpips.algorithms.settings import BlockSettings
from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.plan import Plan
from mpips.views.view import Roles
from tests.recovery.test_lock_step import STEPS, TABLES, beyond, contents, run
from tests.simulated import PLACES, SMALL, SimulatedJob, libsvm, program_plan, rest, table

everywhere = pytest.mark.parametrize("place", PLACES)


def again(worker):
    """A program in lock-step whose pushes depend on its place and on sums, so that they are the same when it is run
    again.
    """
    rng = np.random.default_rng(worker.index)
    dense, sparse, each = (worker.table(name) for name in ("d", "s", "each"))
    total = 0.0
    for step in range(STEPS):
        rest(worker._fabric, 1e-3)
        lo = 137 * step % 2000
        dense.push(range(lo, lo + 600), np.sin(total) + rng.random(600))
        keys = np.sort(rng.choice(5000, 50, replace=False)).astype(np.uint64) * 977
        sparse.push(keys, np.cos(total) + rng.random(50))
        each.push([step], [1.0])
        (total,) = worker.sum(rng.random() + 1e-3 * total).wait()
        if step % 5 == 4:
            dense.pull(range(lo, lo + 600)).wait()
    worker.settle()
    return total


@pytest.fixture(scope="module")
def undisturbed():
    """What the tables hold, and the last sum, without a fault."""
    job = run(program=again)
    return contents(job), job.results


@everywhere
def test_a_program_that_is_run_again_by_a_spare_ends_with_the_same_tables(place, undisturbed, rng):
    """Servers may die, too."""

    def disturb(job):
        for victim in rng.permutation(job.view.workers)[: rng.integers(1, 3)].tolist():
            job.simulation.kill(victim, float(rng.uniform(0, 0.06)))
        if rng.random() < 0.5:
            job.simulation.kill(int(rng.choice(job.view.servers)), float(rng.uniform(0, 0.06)))

    job = run(place, int(rng.integers(1 << 30)), program=again, disturb=disturb)
    if beyond(job):
        return
    assert job.outcome.exit == "finished", job.outcome.reason
    assert (contents(job), job.results) == undisturbed


@everywhere
def test_the_others_go_on_without_a_worker_that_is_ignored(place, rng):
    """Neither sums nor summed pushes wait for it."""

    def disturb(job):
        job.simulation.kill(job.view.workers[1], float(rng.uniform(0, 0.02)))
        if rng.random() < 0.5:
            job.simulation.kill(int(rng.choice(job.view.servers)), float(rng.uniform(0, 0.06)))

    job = run(place, int(rng.integers(1 << 30)), program=again, disturb=disturb, on_worker_loss="ignore")
    if beyond(job):
        return
    assert len(job.results) == 1
    each = next(part for (name, _), part in contents(job).items() if name == "each")
    counts = [count for (count,) in each[:STEPS]]
    assert set(counts) <= {1.0, 2.0}
    assert counts == sorted(counts, reverse=True)  # both, and then one


@pytest.mark.parametrize("spares", [0, 2])
def test_a_program_can_not_be_redistributed_and_the_job_says_so(spares, seed):
    plan = program_plan(
        again,
        *TABLES,
        roles=Roles(servers=1, data_servers=0, workers=2, spares=spares),
        on_worker_loss="redistribute",
    )
    job = SimulatedJob(plan, PLACES["one node"](4 + spares), seed)
    victim = job.view.workers[0]
    job.simulation.kill(victim, 0.01)
    job.run(limit=100)
    assert job.outcome.exit == "failed"
    assert f"rank {victim} (worker" in job.outcome.reason
    assert "no other can go on with its program" in job.outcome.reason


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", 400, 60, np.random.default_rng(7))
    return folder


def batch_solver(data, folder, seed, **settings):
    """The batch solver on a few rows, not started yet."""
    plan = Plan(
        program=lambda worker: solve(worker, "w", 60, 1, BlockSettings(tolerance=1e-7, blocks=4)),
        tables=lambda features: [
            table(rows=features, dtype="float64", rule={"name": "proximal", "l1": 2.0}, aggregate=True)
        ],
        roles=Roles(servers=2, data_servers=1, workers=2, spares=2),
        data=DataSpec(format="libsvm", files=("x.libsvm",), batch=20, test=TestSplit(every=5)),
        base=data,
        run=folder,
        keeps_rows=True,
        passes=60,
        delay=0,
        memory=SMALL,
        threads=1,
        **settings,
    )
    return SimulatedJob(plan, PLACES["two nodes"](8), seed)


def objectives(job):
    assert job.outcome.exit == "finished", job.outcome.reason
    events = map(json.loads, (job.plan.run / "metrics.jsonl").read_text().splitlines())
    return [event["objective"] for event in events if event["event"] == "report"]


def test_the_batch_solver_comes_to_the_same_objective_when_a_worker_dies(data, tmp_path, rng):
    due = objectives(batch_solver(data, tmp_path / "undisturbed", 1).run())[-1]
    job = batch_solver(data, tmp_path / "disturbed", int(rng.integers(1 << 30)), replicas=1)
    job.simulation.kill(int(rng.choice(job.view.workers)), float(rng.uniform(0.005, 0.05)))
    job.run(limit=200)
    assert objectives(job)[-1] == pytest.approx(due, rel=1e-5)
