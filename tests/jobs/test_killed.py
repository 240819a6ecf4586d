"""Whatever is killed, soon nothing of the job is left, and it is said what happened."""

import os
import signal
import time

import pytest

from mpips.cli.launch import Launcher
from tests.jobs.conftest import FOREVER, TRAIN_ROWS, Start
from tests.jobs.started import Started

SOON = 15.0
ROLES = ["scheduler", "server", "data server", "worker"]


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def needs_ulfm(launcher: Launcher) -> None:
    if not launcher.ulfm:
        pytest.skip("this MPI has no ULFM: a dead rank takes the job down before mpips can say a word")


@pytest.mark.usefixtures("needs_ulfm")
@pytest.mark.parametrize("role", ROLES)
def test_death_of_a_rank_ends_the_job_and_names_it(run: Start, role: str) -> None:
    job: Started = run(FOREVER, "roles.spares=1", "roles.workers=2", "checkpoint.every=0.3")
    job.until_training(2)
    rank = next(entry["rank"] for entry in job.ranks() if entry["pid"] == job.pid_of(role))
    kill(job.pid_of(role))
    assert job.end(SOON) == 1, job.said
    assert f"rank {rank}" in job.complaint
    assert role in job.complaint


@pytest.mark.usefixtures("needs_ulfm")
def test_death_of_a_spare_does_no_harm_and_that_of_a_worker_under_a_plain_mpirun_is_said(plain: Start) -> None:
    job: Started = plain(FOREVER, "roles.spares=1", ranks=5, ulfm=True)
    job.until_training(1)
    kill(job.pid_of("spare"))
    job.until(lambda: job.events("lost"), "notice of the spare's death")
    job.until(lambda: len(job.ranks()) == 4, "the list of ranks without it")
    job.until_training(len(job.events("epoch")) + 3)
    kill(job.pid_of("worker"))
    assert job.end(SOON) != 0, job.said
    assert "rank 3 (worker" in job.complaint
    result = job.result()
    assert result["exit"] == "failed"
    assert result["examples"] >= 4 * TRAIN_ROWS
    assert job.events("checkpoint"), "what was learned is saved"


def test_death_of_a_rank_ends_a_plain_mpirun_without_ulfm(plain: Start) -> None:
    job: Started = plain(FOREVER)
    job.until_training(1)
    kill(job.pid_of("server"))
    assert job.end(SOON) != 0, job.said


def test_mpips_run_says_that_mpirun_was_killed(run: Start) -> None:
    job: Started = run(FOREVER)
    job.until_training(1)
    kill(job.mpirun_pid())
    assert job.end(SOON) == 1, job.said
    assert "mpirun: ended by SIGKILL" in job.complaint


def test_killed_mpips_run_takes_its_job_with_it(run: Start) -> None:
    job: Started = run(FOREVER)
    job.until_training(1)
    kill(job.process.pid)
    assert job.end(SOON) == -signal.SIGKILL


def test_killed_mpirun_takes_its_ranks_with_it(plain: Start) -> None:
    job: Started = plain(FOREVER)
    job.until_training(1)
    kill(job.process.pid)
    assert job.end(SOON) == -signal.SIGKILL


@pytest.mark.parametrize("how", ["mpips run", "mpirun"])
def test_everything_may_be_killed_at_once(run: Start, plain: Start, how: str) -> None:
    job: Started = (run if how == "mpips run" else plain)(FOREVER)
    job.until_training(1)
    for pid in job.processes():
        os.kill(pid, signal.SIGSTOP)  # nobody can react to the death of another
    kill(*job.processes())
    assert job.end(SOON) == -signal.SIGKILL


def test_job_that_is_killed_while_it_starts_leaves_nothing(run: Start) -> None:
    job: Started = run(FOREVER)
    job.until(lambda: len(job.processes()) >= 6, "processes of ranks")  # mpips run, its keeper, mpirun, ranks
    time.sleep(0.2)
    kill(job.process.pid)
    assert job.end(SOON) == -signal.SIGKILL
