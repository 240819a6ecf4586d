"""The scheduler's process is killed while a job trains: a standby goes on with it."""

import os
import signal
import time

import pytest

from tests.jobs.conftest import TRAIN_ROWS, Start
from tests.jobs.started import Started

PASSES = 60
WORST = 1.0  # seconds from the kill to the next workload
pytestmark = pytest.mark.replacement


def kill_scheduler(job: Started) -> float:
    """When it was killed, in Unix seconds."""
    pid = job.pid_of("scheduler")
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    return killed


def finished(job: Started) -> None:
    """The job ends as if nothing had happened: every epoch once, every row counted, no event missing or told twice."""
    assert job.end() == 0, job.said
    result = job.result()
    assert result["exit"] == "finished", result
    assert result["examples"] == PASSES * TRAIN_ROWS
    assert sorted(event["epoch"] for event in job.events("epoch")) == list(range(1, PASSES + 1))
    numbers = [event["number"] for event in job.events() if "number" in event]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(("spares", "times"), [(2, 2), (0, 1)])
def test_a_job_goes_on_without_its_scheduler_and_without_the_next(run: Start, spares: int, times: int) -> None:
    """With a spare that takes its place, or without one as a task more for the data server."""
    job: Started = run(
        f"algorithm.passes={PASSES}", "roles.workers=2", f"roles.spares={spares}", "checkpoint.every=0.3"
    )
    killed = []
    for lost in range(1, times + 1):
        job.until_training(len(job.events("epoch")) + 5)
        killed.append(kill_scheduler(job))
        job.until(lambda left=5 + spares - lost: len(job.ranks()) == left, "the list of ranks without it")  # type: ignore[misc]
        assert "scheduler" in {rank["role"] for rank in job.ranks()}
    finished(job)
    recoveries = job.result()["recoveries"]
    assert [recovery["role"] for recovery in recoveries] == ["scheduler"] * times
    assert recoveries[0]["rank"] == 0
    for recovery, time_killed in zip(recoveries, killed, strict=True):
        assert recovery["detected"] + recovery["acknowledged"] - time_killed < WORST
