"""Ranks that stand still: without an end to patience they are waited for, with one they are replaced and sent away."""

import itertools
import json

import numpy as np
import pytest

from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.scheduler.succession import with_standbys
from mpips.views.chains import chains_of
from mpips.views.view import Roles
from tests.recovery.test_failover import check, reader
from tests.simulated import PLACES, SLOW, SimulatedJob, count, libsvm, program_plan, table

ROWS, PASSES = 800, 3
TRAINED = ROWS * 4 // 5
PATIENCE = 0.3
STILL = 3.0  # seconds
LIMIT = 60.0
ROLES = Roles(servers=2, data_servers=1, workers=2, spares=2)
RANKS = 8
SPEC = table("w", rows=100)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", ROWS, 60, np.random.default_rng(7))
    return DataSpec(format="libsvm", files=(str(folder / "x.libsvm"),), test=TestSplit(every=5), batch=10)


def counting(spec, run, place, seed, **settings):
    """A job that counts its rows."""
    plan = program_plan(
        count,
        SPEC,
        **{"data": spec, "passes": PASSES, "seed": 3, "roles": ROLES, "run": run, "replicas": 1} | settings,
    )
    return SimulatedJob(plan, PLACES[place](RANKS), seed, latency=SLOW)


def rank_of(job, role):
    return {
        "scheduler": job.view.scheduler,
        "server": int(chains_of(job.view, SPEC).heads[0]),
        "data server": job.view.data_servers[0],
        "standby": with_standbys(job.view, job.plan).standbys[0],
        "worker": job.view.workers[0],
    }[role]


def events(run, kind):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


def counted(job):
    """Every row was counted once an epoch, as the one rank has it that is the scheduler in the end."""
    [results] = [outcome.results for outcome in job.outcomes if outcome is not None and outcome.results]
    assert results == [float(PASSES * TRAINED)] * 2


@pytest.mark.parametrize("role", ["scheduler", "server", "data server", "standby", "worker"])
@pytest.mark.parametrize("patience", [None, 10.0])
def test_who_stands_still_for_less_than_the_patience_is_waited_for(spec, tmp_path, role, patience):
    job = counting(spec, tmp_path, "two nodes", 1, patience=patience)
    job.simulation.pause(rank_of(job, role), 0.05, STILL)
    job.run(LIMIT)
    assert {outcome.exit for outcome in job.outcomes} == {"finished"}
    counted(job)
    assert not events(tmp_path, "lost")


@pytest.mark.parametrize("role", ["scheduler", "server", "data server", "standby"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(2))
def test_who_stands_still_for_longer_is_replaced_and_leaves_when_it_comes_back(spec, tmp_path, role, place, seed):
    job = counting(spec, tmp_path, place, seed, patience=PATIENCE, passes=PASSES)
    still = rank_of(job, role)
    job.simulation.pause(still, 0.05 + 0.02 * seed, STILL)
    job.run(LIMIT)
    others = [outcome for rank, outcome in enumerate(job.outcomes) if rank != still]
    assert {outcome.exit for outcome in others} == {"finished"}
    assert job.outcomes[still].exit == "lost"
    counted(job)
    [lost] = events(tmp_path, "lost")
    assert (lost["rank"], lost["silent"]) == (still, True)
    assert [event["stage"] for event in events(tmp_path, "recovery")][-1] == "whole"
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["exit"] == "finished"


def test_a_silent_scheduler_is_followed_within_about_the_patience(spec, tmp_path):
    job = counting(spec, tmp_path, "one node", 1, patience=PATIENCE)
    job.simulation.pause(job.view.scheduler, 0.1, STILL)
    job.run(LIMIT)
    ended = [job.ranks[rank]._desk.replica.time for rank in job.ranks if job.ranks[rank].view.scheduler == rank]
    assert min(ended) < 0.1 + STILL, "the job is over before the old scheduler comes back"


def test_a_server_without_whose_shards_the_job_can_not_go_on_is_waited_for(spec, tmp_path):
    job = counting(spec, tmp_path, "one node", 1, patience=PATIENCE, replicas=0)
    job.simulation.pause(rank_of(job, "server"), 0.1, STILL)
    job.run(LIMIT)
    assert {outcome.exit for outcome in job.outcomes} == {"finished"}
    counted(job)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("place", PLACES)
def test_who_comes_back_finds_what_it_has_yet_to_read_as_it_was(place, seed, capsys):
    """Pushes and changes that came before it fell silent lie in arenas whose ranks go on without it."""
    plan = program_plan(
        reader, table("d"), table("s", kind="sparse"),
        roles=Roles(servers=3, workers=3), replicas=1, patience=0.05,
    )  # fmt: skip
    job = SimulatedJob(plan, PLACES[place](7), seed, latency=(1e-4, 1e-3))
    job.simulation.pause(job.view.servers[seed % 3], 0.01 * (2 + seed), 0.2)
    job.run(LIMIT)
    check(job)
    assert [outcome.exit for outcome in job.outcomes].count("lost") == 1
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pair
        for pair in itertools.permutations(["scheduler", "server", "data server", "standby"], 2)
        if set(pair) != {"scheduler", "standby"}  # of whom none could tell which of them stands still
    ],
)
def test_one_may_fall_silent_while_another_is_replaced(spec, tmp_path, one, other):
    job = counting(spec, tmp_path, "two nodes", 2, patience=PATIENCE)
    job.simulation.pause(rank_of(job, one), 0.1, STILL)
    job.simulation.pause(rank_of(job, other), 0.1 + PATIENCE, STILL)
    job.run(LIMIT)
    assert sorted(outcome.exit for outcome in job.outcomes) == ["finished"] * (RANKS - 2) + ["lost"] * 2
    counted(job)
