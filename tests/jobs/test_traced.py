"""`mpips trace` looks into a job that runs: keys of the job file by name, more on demand, also when a server dies."""

import os
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from mpips.cli.launch import Launcher
from mpips.trace import Trace, Update
from tests.jobs.conftest import FOREVER, Start, options
from tests.jobs.started import Started, mpips_run

JOB = Path(__file__).parents[2] / "inputs" / "flights-lr.toml"
SETTINGS = ("checkpoint.folder=run", "algorithm.evaluate_every=0", FOREVER)
pytestmark = pytest.mark.timeout(180)


def trace(job: Started, *arguments: str) -> str:
    """What `mpips trace` says of a job."""
    command = [mpips_run()[0], "trace", str(job.run), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def updates(job: Started, key: int) -> list[Update]:
    return [update for update in Trace(job.run).new() if update.key == key]


def servers_of(job: Started, key: int) -> set[int]:
    return {update.server for update in updates(job, key)}


def test_updates_are_shown_from_the_start_and_on_demand_and_by_the_copy_of_a_server_that_dies(
    start: Start, launcher: Launcher, flights_cache: str
) -> None:
    settings = (*SETTINGS, flights_cache, "roles.servers=2", 'tables.w.trace=["carrier=UA"]')
    job: Started = start(mpips_run(JOB, *options(settings)))
    job.until_training()
    (event,) = job.events("trace")
    (key,) = event["keys"]
    job.until(lambda: updates(job, key), "an update of a key of the job file")
    assert updates(job, key)[0].before == [0.0]  # nothing was missed
    shown = trace(job, "w", "carrier=UA", "--last", "5")
    assert shown.count("carrier=UA") == 5

    assert 'done: table "w": 2 keys are traced now' in trace(job, "w", "carrier=AA")
    asked = next(other for other in job.events("trace")[-1]["keys"] if other != key)
    job.until(lambda: updates(job, asked), "an update of a key that was asked for")
    assert "carrier=AA" in trace(job, "w", "carrier=AA")

    if launcher.ulfm:
        (head,) = servers_of(job, key)
        os.kill(next(rank["pid"] for rank in job.ranks() if rank["rank"] == head), signal.SIGKILL)
        job.until(lambda: len(servers_of(job, key)) == 2, "an update by the copy of the server that was killed")
        for server in servers_of(job, key):
            own = [update for update in updates(job, key) if update.server == server]
            assert all(one.after == next_.before for one, next_ in pairwise(own))
    assert "no keys are traced now" in trace(job, "w", "--stop")
    job.process.send_signal(signal.SIGINT)
    assert job.end() == 130, job.said
    assert "Traceback" not in job.said
    workers = {rank for update in updates(job, key) for rank in [update.shares[0].rank]}
    assert len(workers) == 2
