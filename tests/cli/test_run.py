"""`mpips run` from start to end, with ranks that only pretend to train (see pretend_rank.py)."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mpips.cli.cleanup import SHARED_MEMORY
from mpips.cli.launch import find
from tests.cli.conftest import Started

Start = Callable[..., Started]
pytestmark = pytest.mark.timeout(90)


@pytest.mark.every_mpi
def test_finished_job_shows_progress_and_a_table_and_exits_0(start: Start) -> None:
    job = start("finish")
    assert job.end() == 0, job.said()
    said = job.said()
    assert "started: 4 ranks" in said
    assert "epoch 1/5 · 1,000 examples" in said
    assert "epoch 3: auc 0.7500 · logloss 0.4500" in said
    assert "0.7931" in said
    assert job.nothing_is_left()


def test_ranks_own_messages_are_shown_without_open_mpis_noise(start: Start) -> None:
    job = start("speak")
    assert job.end() == 0, job.said()
    assert "a message of a rank" in job.said().splitlines()
    assert "post-failure" not in job.said()
    assert "-----" not in job.said()


@pytest.mark.every_mpi
def test_failed_job_exits_1_and_says_why(start: Start) -> None:
    job = start("fail")
    assert job.end() == 1, job.said()
    assert "failed: data/x.csv: line 17: column is empty" in job.said()
    assert job.nothing_is_left()


@pytest.mark.every_mpi
def test_job_without_a_result_has_failed_whatever_mpirun_says(start: Start) -> None:
    job = start("vanish")
    assert job.end() == 1, job.said()
    assert "left no result (mpirun: exit code 0)" in job.said()


@pytest.mark.parametrize("manner", ["vanish once", "torn down once"])
def test_a_job_that_ended_unasked_is_started_again_from_its_newest_generation(start: Start, manner: str) -> None:
    job = start(manner, "--restarts", "3")
    assert job.end(60) == 0, job.said()
    assert "started again, going on from generation 4 (restart 1 of 3)" in job.said()
    assert "restart 2" not in job.said()
    assert job.result()["exit"] == "finished"
    assert "start" in (job.folder / "metrics.1.jsonl").read_text()
    assert "start" in (job.folder / "metrics.jsonl").read_text()
    assert job.nothing_is_left()


def test_a_job_is_started_again_as_often_as_was_asked(start: Start) -> None:
    job = start("vanish", "--restarts", "2")
    assert job.end(60) == 1, job.said()
    assert "from its beginning, there is no generation of it (restart 2 of 2)" in job.said()
    assert job.said().count("left no result") == 3


def test_a_job_that_fails_in_the_same_way_without_coming_further_is_given_up(start: Start) -> None:
    job = start("fail", "--restarts", "9")
    assert job.end(60) == 1, job.said()
    assert "restart 1 of 9" in job.said()
    assert "it has come no further than the time before: not started again" in job.said()
    assert "restart 2" not in job.said()


def test_a_job_that_was_stopped_by_a_signal_is_not_started_again(start: Start) -> None:
    job = start("train", "--restarts", "9")
    job.until_training()
    job.process.send_signal(signal.SIGTERM)
    assert job.end() == 128 + signal.SIGTERM, job.said()
    assert "started again" not in job.said()


def test_result_of_an_earlier_run_is_not_taken_for_this_ones(start: Start) -> None:
    assert start("finish").end() == 0
    job = start("vanish")
    assert job.end() == 1, job.said()
    assert not (job.folder / "result.json").exists()


def test_job_that_has_its_result_but_does_not_leave_is_ended(start: Start) -> None:
    job = start("hang")
    assert job.end(40) == 0, job.said()
    assert job.nothing_is_left()


@pytest.mark.every_mpi
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_stops_with_a_checkpoint(start: Start, number: signal.Signals, code: int) -> None:
    job = start("train")
    job.until_training()
    job.process.send_signal(number)
    assert job.end() == code, job.said()
    assert f"{number.name}: stopping with a checkpoint" in job.said()
    assert job.result()["exit"] == "interrupted"
    assert "checkpoint: generation 1" in job.said()
    assert job.nothing_is_left()


def test_second_signal_ends_a_job_that_does_not_stop(start: Start) -> None:
    job = start("stubborn")
    job.until_training()
    job.process.send_signal(signal.SIGINT)
    job.until(lambda: "stopping with a checkpoint" in job.said())
    time.sleep(0.3)
    assert job.process.poll() is None
    began = time.monotonic()
    job.process.send_signal(signal.SIGINT)
    assert job.end() == 130, job.said()
    assert time.monotonic() - began < 5
    assert job.nothing_is_left()


def test_signal_before_the_ranks_are_up_ends_the_job(start: Start) -> None:
    job = start("train")
    job.until(lambda: "starting 4 ranks" in job.said())
    job.process.send_signal(signal.SIGTERM)
    assert job.end() == 143, job.said()
    assert job.nothing_is_left()


@pytest.mark.every_mpi
def test_nothing_is_left_when_mpirun_is_killed(start: Start) -> None:
    job = start("train")
    job.until_training()
    job.mpirun.kill()
    assert job.end() == 1, job.said()
    assert "left no result (mpirun: ended by SIGKILL)" in job.said()
    assert job.nothing_is_left()


@pytest.mark.every_mpi
def test_nothing_is_left_when_all_ranks_are_killed(start: Start) -> None:
    job = start("train")
    job.until_training()
    for pid in job.ranks:
        with contextlib.suppress(ProcessLookupError):  # the launcher may be faster when the first is dead
            os.kill(pid, signal.SIGKILL)
    assert job.end() == 1, job.said()
    assert job.nothing_is_left()


@pytest.mark.every_mpi
def test_nothing_is_left_when_mpips_run_itself_is_killed(start: Start) -> None:
    job = start("stubborn")
    job.until_training()
    job.process.kill()
    job.end()
    job.until(job.nothing_is_left, 10)


def test_no_process_is_left_when_mpips_run_and_its_keeper_are_killed(start: Start) -> None:
    job = start("stubborn")
    job.until_training()
    mpirun = job.mpirun
    others = [p for p in psutil.Process(job.process.pid).children() if p.pid != mpirun.pid]
    for process in [*others, psutil.Process(job.process.pid)]:
        process.kill()
    job.end()
    job.until(lambda: not mpirun.is_running() or mpirun.status() == psutil.STATUS_ZOMBIE, 10)
    for pid in job.ranks:  # real ranks ask the kernel to be killed with mpirun
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not job.nothing_is_left()
    assert start("finish").end() == 0
    assert job.nothing_is_left()


def test_shared_memory_lies_in_a_folder_of_the_runs_own(start: Start) -> None:
    if not find().places_shared_memory:
        pytest.skip("this MPI can't be told where its shared memory is to lie")
    job = start("train")
    job.until_training()
    mapped = [
        line.split()[-1]
        for pid in job.ranks
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if f"{SHARED_MEMORY}/" in line and "(deleted)" not in line
    ]
    assert mapped
    assert all(path.startswith(f"{SHARED_MEMORY}/{job.name}/") for path in mapped)


def test_two_jobs_do_not_share_a_run_folder(start: Start) -> None:
    job = start("train")
    job.until_training()
    second = start("finish")
    assert second.end() == 1
    assert "another job runs in this folder" in (job.said() + second.said())
    assert job.process.poll() is None
