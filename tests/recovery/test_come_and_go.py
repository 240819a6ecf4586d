"""Ranks join and leave while data are trained on, and die meanwhile: every example counts once an epoch."""

from dataclasses import replace

import numpy as np
import pytest

from mpips.messages import Scaled
from mpips.views.view import Roles
from tests.recovery.test_lock_step import beyond, contents, outcome
from tests.simulated import PLACES, SimulatedJob, table
from tests.worker.test_lost_workers import PASSES, TRAIN, Count, data, job_of, undisturbed  # noqa: F401

SERVERS, WORKERS, SPARES = 2, 2, 3
everywhere = pytest.mark.parametrize("place", PLACES)


def job_with_spares(data, folder, place, seed, program, **settings):  # noqa: F811
    roles = Roles(servers=SERVERS, data_servers=1, workers=WORKERS, spares=SPARES)
    settings = {"copy_share": 1.0, "replicas": 1, "evaluate_every": 1, **settings}
    return job_of(data, folder, place, seed, program, roles=roles, **settings)


def ask(job, at, servers=None, workers=None):
    """Have the job be asked for another size at a time, if it has begun then."""

    def go():
        for rank, each in job.ranks.items():
            desk = each._desk
            if (
                desk is not None
                and not job.simulation.ranks[rank].dead
                and desk.replica.scheduler.view.scheduler == rank
            ):
                desk._take(Scaled(desk._now(), f"at {at}", servers, workers))

    job.simulation.at(at, go)


def counted(job):
    """How many rows were counted, and how often each feature."""
    found = contents(job)
    rows = found["rows", 0][0][0]
    return rows, [value for (name, _), part in sorted(found.items()) if name == "w" for (value,) in part]


@everywhere
def test_workers_and_servers_come_and_go_and_every_example_counts_once(data, undisturbed, tmp_path, place, rng):  # noqa: F811
    programs, ended = [], []

    def program(worker):
        programs.append(worker.rank)
        worker.train(Count(worker, 2e-3))
        ended.append(worker.rank)

    job = job_with_spares(data, tmp_path, place, int(rng.integers(1 << 30)), program)
    for at in np.sort(rng.uniform(0.02, 0.35, 6)).tolist():
        servers = int(rng.integers(1, 4)) if rng.random() < 0.5 else None
        ask(job, at, servers, int(rng.integers(1, 4)) if servers is None or rng.random() < 0.5 else None)
    if rng.random() < 0.6:
        job.kill(
            str(rng.choice(["worker", "server", "data server", "scheduler", "spare"])), float(rng.uniform(0.02, 0.3))
        )
    job.run(limit=100)
    if beyond(job):
        return
    assert outcome(job).exit == "finished", outcome(job).reason
    rows, occurrences = counted(job)
    assert rows == PASSES * TRAIN
    assert occurrences == (PASSES * undisturbed).tolist()
    assert len(programs) - len(ended) <= 1  # but of a worker that died


def test_a_worker_that_leaves_ends_its_program_and_may_come_back_as_worker_or_server(data, undisturbed, tmp_path, seed):  # noqa: F811
    """Its second life pushes under another identity, also what belongs to no batch."""
    lives = []

    def program(worker):
        lives.append((worker.rank, worker.table("rows")._steps._identity))
        worker.table("rows").push([0], [10_000.0])
        worker.train(Count(worker, 2e-3))
        worker.table("rows").push([0], [10_000.0])

    job = job_with_spares(data, tmp_path, "two nodes", seed, program, passes=6)
    for at, workers, servers in ((0.03, 1, None), (0.06, 5, None), (0.1, 1, None), (0.15, 1, 6), (0.3, 3, 2)):
        ask(job, at, servers, workers)
    job.run(limit=100)
    assert job.outcome.exit == "finished", job.outcome.reason
    back = job.view.workers[1]
    assert [rank for rank, _ in lives].count(back) >= 2
    assert len({identity for _, identity in lives}) == len(lives)
    rows, occurrences = counted(job)
    assert rows == 6 * TRAIN + len(lives) * 20_000
    assert occurrences == (6 * undisturbed).tolist()


@pytest.mark.parametrize("name", ["significance", "delta"])
def test_filters_begin_anew_with_a_worker_that_comes_back(data, tmp_path, name, seed):  # noqa: F811
    """What they know of the values that the other side has is from its first life."""

    class Pulls(Count):
        def train(self, batch):
            self.worker.table("w").pull(batch.keys).wait()
            return super().train(batch)

    lives = []

    def program(worker):
        lives.append(worker.rank)
        worker.train(Pulls(worker, 2e-3))

    filtered = table("w", rows=80, pull_filters=[{"name": name}])
    job = job_with_spares(data, tmp_path, "nodes of their own", seed, program)
    plan = replace(job.plan, tables=lambda features: [filtered, table("rows", rows=1)])
    job = SimulatedJob(plan, job.view.nodes, seed)
    for at, workers in ((0.05, 1), (0.1, 3), (0.15, 1), (0.2, 3)):
        ask(job, at, workers=workers)
    job.run(limit=100)
    assert job.outcome.exit == "finished", job.outcome.reason
    assert len(lives) > len(set(lives))
    assert counted(job)[0] == PASSES * TRAIN


def test_a_worker_that_leaves_does_not_wait_for_a_sum_or_for_anything_else(data, tmp_path, seed):  # noqa: F811
    ended = {}

    def program(worker):
        if worker.index == 0:
            worker.train(Count(worker, 2e-3))
            return
        try:
            if worker.index == 1:
                worker.idle(lambda: False)
            else:
                worker.sum(1.0).wait(timeout=50)
        finally:
            ended[worker.rank] = worker._fabric.now()

    job = job_with_spares(data, tmp_path, "one node", seed, program)
    ask(job, 0.02, workers=3)
    ask(job, 0.05, workers=1)
    job.run(limit=100)
    assert job.outcome.exit == "finished", job.outcome.reason
    assert len(ended) == 2
    assert max(ended.values()) < 0.06 < job.simulation.time
    assert all(job.ranks[rank]._worker is None for rank in ended)
