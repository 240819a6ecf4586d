"""A job that has no spares is given some while it runs: new processes, which take the place of ranks that die."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs.conftest import Start
from tests.jobs.started import Started, asked, mpips_run

JOB = Path(__file__).parents[2] / "inputs" / "flights-lr.toml"
SETTINGS = (
    "checkpoint.folder=run",
    "algorithm.passes=100000",
    "algorithm.evaluate_every=0",
    "roles.servers=2",
    "roles.data_servers=1",
    "roles.workers=1",
)
RANKS = 5
pytestmark = [pytest.mark.timeout(180), pytest.mark.replacement]


@pytest.fixture
def flights(start: Start, flights_cache: str) -> Callable[..., Started]:
    """Start the flights, which would be learned for hours, and wait until they are."""

    def begin(*changes: str) -> Started:
        values = (*SETTINGS, flights_cache, *changes)
        job = start(mpips_run(JOB, *(word for value in values for word in ("--set", value))))
        job.until_training(1)
        return job

    return begin


def entry(job: Started, rank: int) -> dict[str, object]:
    """What is known of a rank, once it is listed."""
    job.until(lambda: any(each["rank"] == rank for each in job.ranks()), f"rank {rank} in the list")
    return next(each for each in job.ranks() if each["rank"] == rank)


def kill(job: Started, rank: int) -> None:
    os.kill(int(str(entry(job, rank)["pid"])), signal.SIGKILL)


def until_whole(job: Started, lost: int) -> None:
    """Wait until so many deaths are made up for."""
    job.until(
        lambda: sum(event["stage"] == "whole" for event in job.events("recovery")) >= lost, f"{lost} recoveries", 60
    )


def goes_on(job: Started, lost: int) -> None:
    """The job learns for two epochs more, and ends when it is asked to."""
    epochs = len(job.events("epoch"))
    job.until_training(epochs + 2)
    job.process.send_signal(signal.SIGINT)
    assert job.end(60) == 128 + signal.SIGINT, job.said
    result = job.result()
    assert result["reason"].endswith("received"), job.said
    assert len(result["recoveries"]) == lost
    assert "Traceback" not in job.said


def test_a_new_process_takes_the_place_of_a_server_that_is_killed(flights: Callable[..., Started]) -> None:
    job = flights("fabric.separate_nodes=true")
    said = asked(job, "scale", "servers=3", code=1)
    assert "3 servers need 1 spares, there are 0: have more started by mpips scale RUN spares=+1" in said
    said = asked(job, "scale", "spares=+1")
    assert f"done: 1 more spare: rank {RANKS}" in said, said
    assert entry(job, RANKS)["role"] == "spare"
    kill(job, 2)
    until_whole(job, 1)
    assert entry(job, RANKS)["role"] == "server"
    goes_on(job, 1)


def test_new_processes_come_after_deaths_and_take_every_role(flights: Callable[..., Started]) -> None:
    """Also when ranks that came earlier are to know those that come later, and when one of them is killed."""
    job = flights()
    kill(job, 0)
    until_whole(job, 1)
    assert f"done: 2 more spares: ranks {RANKS}, {RANKS + 1}" in asked(job, "scale", "spares=+2")
    kill(job, RANKS)
    until_whole(job, 2)
    assert f"done: 1 more spare: rank {RANKS + 2}" in asked(job, "scale", "spares=+1")
    assert "done: 2 servers already; 1 to 2 workers" in asked(job, "scale", "servers=2", "workers=2")
    goes_on(job, 2)
