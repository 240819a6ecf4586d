"""Ranks that come to a running job: they are spares, and take any role, whoever dies meanwhile."""

import json

import numpy as np
import pytest

from mpips.messages import Scaled
from mpips.plan import Plan
from mpips.views.view import Roles
from tests.recovery.test_come_and_go import counted
from tests.recovery.test_lock_step import beyond, outcome
from tests.simulated import PLACES, SMALL, SimulatedJob, table
from tests.worker.test_lost_workers import PASSES, TRAIN, Count, data, undisturbed  # noqa: F401

RANKS = 6
STEP = 20e-3  # seconds of a batch: the job lasts longer than a birth
everywhere = pytest.mark.parametrize("place", PLACES)


def job_without_spares(data, folder, place, seed, **settings):  # noqa: F811
    spec, base = data
    plan = Plan(
        program=lambda worker: worker.train(Count(worker, STEP)),
        tables=lambda features: [table(rows=features), table("rows", rows=1)],
        data=spec,
        base=base,
        run=folder,
        memory=SMALL,
        threads=1,
        passes=PASSES,
        roles=Roles(servers=2, data_servers=1, workers=2),
        **{"copy_share": 1.0, "replicas": 1, "evaluate_every": 1, **settings},
    )
    return SimulatedJob(plan, PLACES[place](RANKS), seed)


def ask(job, at, name, **sizes):
    """Have the job be asked for more spares, or for other sizes, at a time."""

    def go():
        for rank, each in job.ranks.items():
            desk = each._desk
            acts = desk is not None and desk.replica.scheduler.view.scheduler == rank
            if acts and not job.simulation.ranks[rank].dead:
                wanted = {"servers": None, "workers": None, "spares": None, **sizes}
                desk._take(Scaled(desk._now(), name, **wanted))

    job.simulation.at(at, go)


def latest_view(job):
    """The last view that any living rank has."""
    living = [job.ranks[rank] for rank in job.ranks if not job.simulation.ranks[rank].dead]
    return max((each.view for each in living), key=lambda view: view.number)


def texts(folder, kind):
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [event["text"] for event in events if event["event"] == kind]


def every_row_counts_once_an_epoch(job, undisturbed):  # noqa: F811
    assert outcome(job).exit == "finished", outcome(job).reason
    rows, occurrences = counted(job)
    assert rows == PASSES * TRAIN
    assert occurrences == (PASSES * undisturbed).tolist()


@everywhere
def test_a_rank_that_comes_takes_the_place_of_a_server_that_dies(data, undisturbed, tmp_path, place, seed):  # noqa: F811
    job = job_without_spares(data, tmp_path, place, seed)
    ask(job, 0.1, "one", spares=1)
    job.kill("server", 1.3)
    job.run(limit=100)
    every_row_counts_once_an_epoch(job, undisturbed)
    view = latest_view(job)
    assert len(view.nodes) == RANKS + 1
    assert RANKS in view.servers


@everywhere
def test_ranks_that_come_one_after_the_other_take_any_role(data, undisturbed, tmp_path, place, seed):  # noqa: F811
    job = job_without_spares(data, tmp_path, place, seed)
    ask(job, 0.05, "two", spares=2)
    ask(job, 0.06, "one", spares=1)
    ask(job, 3.3, "sizes", servers=3, workers=4)
    job.run(limit=100)
    every_row_counts_once_an_epoch(job, undisturbed)
    view = latest_view(job)
    assert view.counts() == {"scheduler": 1, "servers": 3, "data_servers": 1, "workers": 4, "spares": 0}
    assert view.lost == []
    assert view.nodes[RANKS:] == ([0, 0, 0] if place == "one node" else view.nodes[RANKS:])


@everywhere
@pytest.mark.parametrize("turn", range(4))
def test_whoever_dies_while_ranks_come_the_job_goes_on_with_those_that_came(
    data,  # noqa: F811
    undisturbed,  # noqa: F811
    tmp_path,
    place,
    turn,
    rng,
):
    job = job_without_spares(data, tmp_path, place, int(rng.integers(1 << 30)))
    ask(job, 0.05, "first", spares=1)
    ask(job, 1.3, "then", spares=2)
    for at in np.sort(rng.uniform(0.05, 3.0, 2)).tolist():
        job.kill(str(rng.choice(["worker", "server", "data server", "scheduler", "spare"])), at)
    if rng.random() < 0.5:
        job.simulation.delay(0.1, 1e-3)
    job.run(limit=100)
    if not beyond(job):
        every_row_counts_once_an_epoch(job, undisturbed)
        view = latest_view(job)
        assert RANKS <= len(view.nodes) <= RANKS + 3


def test_a_parent_that_dies_takes_the_child_along_and_who_asked_is_told(data, undisturbed, tmp_path, seed):  # noqa: F811
    job = job_without_spares(data, tmp_path, "one node", seed)
    ask(job, 0.05, "one", spares=1)

    def parent():
        return [job.simulation.ranks[RANKS].parent] if len(job.simulation.ranks) > RANKS else []

    job.simulation.kill_one(parent, 0.15)
    job.run(limit=100)
    every_row_counts_once_an_epoch(job, undisturbed)
    assert latest_view(job).lost[-1] == RANKS
    assert any("while it was starting another" in text for text in texts(tmp_path, "note"))


def test_a_child_that_dies_before_it_is_ready_is_reported(data, undisturbed, tmp_path, seed):  # noqa: F811
    job = job_without_spares(data, tmp_path, "one node", seed)
    ask(job, 0.05, "one", spares=1)
    job.simulation.kill(RANKS, 0.15)
    job.run(limit=100)
    every_row_counts_once_an_epoch(job, undisturbed)
    assert latest_view(job).lost == [RANKS]
    assert any("the new process has died" in text for text in texts(tmp_path, "note"))
