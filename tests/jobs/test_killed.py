"""Whatever is killed, soon nothing of the job is left, and it is said what happened."""

import contextlib
import os
import signal
import time

import pytest

from mpips.checkpoint import Generation, generations
from tests.jobs.conftest import FOREVER, TRAIN_ROWS, Start
from tests.jobs.started import Started

SOON = 15.0


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.replacement
def test_a_server_without_copies_is_missed_and_a_resumed_job_goes_on_from_the_last_checkpoint(run: Start) -> None:
    changes = ("roles.servers=2", "roles.spares=1", "recovery.replicas=0", "checkpoint.every=0.3")
    job: Started = run(FOREVER, *changes)
    job.until(lambda: job.events("checkpoint"), "a checkpoint")
    job.until_training(len(job.events("epoch")) + 1)
    dead = next(entry["rank"] for entry in job.ranks() if entry["pid"] == job.pid_of("server"))
    kill(job.pid_of("server"))
    assert job.end(SOON) == 1, job.said
    assert f"rank {dead} (server" in job.complaint
    assert 'no copy is left of some shards of table "w"' in job.complaint
    [recovery] = job.result()["recoveries"]
    assert (recovery["rank"], recovery["role"], recovery["view"]) == (dead, "server", None)

    with Generation(generations(job.run)[0]) as generation:
        done = generation.progress
    passes = done["epochs"] + 3
    again: Started = run(f"algorithm.passes={passes}", "--resume", *changes)
    assert again.end() == 0, again.said
    assert "resumed from" in again.notes()
    assert done["examples"] + again.result()["examples"] == passes * TRAIN_ROWS


@pytest.mark.replacement
def test_a_program_in_lock_step_ends_when_no_spare_is_left_to_run_it_again(run: Start) -> None:
    solver = ("algorithm.solver=block", "tables.w.kind=dense", "tables.w.rows=20001", "tables.w.aggregate=true")
    job: Started = run(FOREVER, "roles.workers=2", *solver, "tables.w.rule={name='proximal', l1=1.0}")
    job.until(lambda: job.events("report"), "the first pass")
    kill(job.pid_of("worker"))
    assert job.end(SOON) == 1, job.said
    assert "(worker" in job.complaint
    assert "no spare is left to run its program again" in job.complaint


@pytest.mark.replacement
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


@pytest.mark.every_mpi
def test_death_of_a_rank_ends_a_plain_mpirun_without_ulfm(plain: Start) -> None:
    job: Started = plain(FOREVER)
    job.until_training(1)
    assert "ULFM" not in job.notes()  # it has asked for nothing that takes it
    kill(job.pid_of("server"))
    assert job.end(SOON) != 0, job.said


def test_mpips_run_says_that_mpirun_was_killed(run: Start) -> None:
    job: Started = run(FOREVER)
    job.until_training(1)
    kill(job.mpirun_pid())
    assert job.end(SOON) == 1, job.said
    assert "mpirun: ended by SIGKILL" in job.complaint


@pytest.mark.every_mpi
@pytest.mark.parametrize("who", ["mpirun", "server"])
def test_a_job_that_dies_goes_on_by_itself_from_its_newest_generation(run: Start, who: str) -> None:
    """Nobody has a copy of what the server had."""
    job: Started = run("algorithm.passes=200", "checkpoint.every=0.3", "--restarts=2")
    job.until(lambda: len(job.events("checkpoint")) > 1, "checkpoints")
    job.until_training(len(job.events("epoch")) + 1)
    before = len(generations(job.run))
    assert before > 0
    killed = time.monotonic()
    kill(job.mpirun_pid() if who == "mpirun" else job.pid_of("server"))
    job.until(lambda: (job.run / "metrics.1.jsonl").exists(), "notice of it", SOON)
    job.until(lambda: job.events("restored"), "training again", SOON)
    assert time.monotonic() - killed < SOON
    job.process.send_signal(signal.SIGTERM)
    assert job.end() == 128 + signal.SIGTERM, job.said
    assert "(restart 1 of 2)" in job.complaint
    assert job.result()["exit"] == "interrupted"


def test_killed_mpips_run_takes_its_job_with_it(run: Start) -> None:
    job: Started = run(FOREVER)
    job.until_training(1)
    kill(job.process.pid)
    assert job.end(SOON) == -signal.SIGKILL


@pytest.mark.every_mpi
def test_killed_mpirun_takes_its_ranks_with_it(plain: Start) -> None:
    job: Started = plain(FOREVER)
    job.until_training(1)
    kill(job.process.pid)
    assert job.end(SOON) == -signal.SIGKILL


@pytest.mark.every_mpi
@pytest.mark.parametrize("how", ["mpips run", "mpirun"])
def test_everything_may_be_killed_at_once(run: Start, plain: Start, how: str) -> None:
    job: Started = (run if how == "mpips run" else plain)(FOREVER)
    job.until_training(1)
    for pid in job.processes():
        os.kill(pid, signal.SIGSTOP)  # nobody can react to the death of another
    for pid in job.processes():
        with contextlib.suppress(ProcessLookupError):  # ranks go with their launcher
            kill(pid)
    assert job.end(SOON) == -signal.SIGKILL


@pytest.mark.every_mpi
def test_job_that_is_killed_while_it_starts_leaves_nothing(run: Start) -> None:
    job: Started = run(FOREVER)
    job.until(lambda: len(job.processes()) >= 6, "processes of ranks")  # mpips run, its keeper, mpirun, ranks
    time.sleep(0.2)
    kill(job.process.pid)
    assert job.end(SOON) == -signal.SIGKILL
