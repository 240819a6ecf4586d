"""Hosts that fall silent: nothing passes between them and the others any more, and MPI tells nothing of it."""

import json

import numpy as np
import pytest

from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.fabric.spec import NetworkSpec
from mpips.plan import Roles
from tests.simulated import SLOW, SimulatedJob, count, libsvm, program_plan, table

ROWS, PASSES = 2400, 4
TRAINED = ROWS * 4 // 5
TIMEOUT = 0.8  # a simulated rank that is idle looks at the world four times a second
UNDISTURBED = 3.0  # seconds
LIMIT = 60.0
ROLES = Roles(servers=3, data_servers=2, workers=3, spares=3)
RANKS, HOSTS = 12, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", ROWS, 60, np.random.default_rng(7))
    return DataSpec(format="libsvm", files=(str(folder / "x.libsvm"),), test=TestSplit(every=5), batch=10)


def job_on(hosts, data, run, seed):
    """A job that counts its rows, with the ranks dealt to the hosts in turn."""
    plan = program_plan(
        count, table("w", rows=100), data=data, passes=PASSES, seed=3, roles=ROLES, run=run, replicas=1,
        network=NetworkSpec(heartbeat=TIMEOUT / 4, timeout=TIMEOUT),
    )  # fmt: skip
    return SimulatedJob(plan, [rank % hosts for rank in range(RANKS)], seed, latency=SLOW)


def events(run, kind):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


def finished_on(job, ranks):
    """These ranks have seen the job finish, with every row counted once an epoch."""
    assert {job.outcomes[rank].exit for rank in ranks} == {"finished"}
    [results] = [job.outcomes[rank].results for rank in ranks if job.outcomes[rank].results]
    assert set(results) == {float(PASSES * TRAINED)}


@pytest.mark.parametrize(("host", "at"), [*((host, 0.6) for host in range(HOSTS)), (0, 0.01), (1, 0.2), (2, 1.2)])
def test_the_job_goes_on_without_a_host_and_that_leaves(data, tmp_path, host, at):
    job = job_on(HOSTS, data, tmp_path, 1)
    apart = [rank for rank in range(RANKS) if rank % HOSTS == host]
    job.simulation.silence(apart, at)
    job.run(LIMIT)
    assert {job.outcomes[rank].exit for rank in apart} == {"lost"}
    finished_on(job, [rank for rank in range(RANKS) if rank not in apart])
    assert sorted(event["rank"] for event in events(tmp_path, "lost")) == apart
    assert json.loads((tmp_path / "result.json").read_text())["exit"] == "finished"


@pytest.mark.parametrize("host", range(HOSTS))
def test_a_host_whose_power_is_gone_is_given_up_soon(data, tmp_path, host):
    job = job_on(HOSTS, data, tmp_path, 1)
    apart = [rank for rank in range(RANKS) if rank % HOSTS == host]
    job.simulation.silence(apart, 1.0)
    for rank in apart:
        job.simulation.kill(rank, 1.0)
    job.run(LIMIT)
    finished_on(job, [rank for rank in range(RANKS) if rank not in apart])
    assert job.simulation.time < UNDISTURBED + 3 * TIMEOUT


@pytest.mark.parametrize("apart", [(0, 1), (2, 3)])
def test_of_two_halves_that_of_the_scheduler_goes_on(data, tmp_path, apart):
    job = job_on(HOSTS, data, tmp_path, 2)
    side = [rank for rank in range(RANKS) if rank % HOSTS in apart]
    job.simulation.silence(side, 0.6)
    job.run(LIMIT)
    mine = [rank for rank in range(RANKS) if (rank in side) == (job.view.scheduler in side)]
    assert {job.outcomes[rank].exit for rank in range(RANKS) if rank not in mine} == {"lost"}
    assert len({job.outcomes[rank].exit for rank in mine} - {"lost"}) == 1


def test_a_host_that_computes_is_not_silent(data, tmp_path):
    job = job_on(HOSTS, data, tmp_path, 1)
    for rank in range(1, RANKS, HOSTS):
        job.simulation.pause(rank, 0.6, 5 * TIMEOUT)
    job.run(LIMIT)
    assert not events(tmp_path, "lost")
    finished_on(job, range(RANKS))


def test_a_fault_of_the_network_shorter_than_the_timeout_changes_nothing(data, tmp_path):
    job = job_on(HOSTS, data, tmp_path, 1)
    job.simulation.cut(range(1, RANKS, HOSTS), 0.6, 0.6 + TIMEOUT / 2)
    job.run(LIMIT)
    assert not events(tmp_path, "lost")
    finished_on(job, range(RANKS))
