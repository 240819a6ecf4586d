"""`mpips trace` looks into a job that runs: keys of the job file by name, more on demand, also when a server dies."""

import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from mpips.cli.launch import Launcher
from mpips.trace import Trace, Update
from tests.jobs.conftest import FOREVER, Start, options
from tests.jobs.started import Started, asked, mpips_run

JOB = Path(__file__).parents[2] / "inputs" / "flights-lr.toml"
SETTINGS = ("checkpoint.folder=run", "algorithm.evaluate_every=0", FOREVER)
pytestmark = pytest.mark.timeout(180)


class Updates:
    """What a job has recorded of its updates, read as it comes."""

    def __init__(self, job: Started) -> None:
        self._record = Trace(job.run)
        self._seen: list[Update] = []

    def of(self, key: int) -> list[Update]:
        """Those of a key."""
        self._seen += self._record.new()
        return [update for update in self._seen if update.key == key]

    def servers(self, key: int) -> set[int]:
        """Who has applied them."""
        return {update.server for update in self.of(key)}


def test_updates_are_shown_from_the_start_and_on_demand_and_by_the_copy_of_a_server_that_dies(
    start: Start, launcher: Launcher, flights_cache: str
) -> None:
    settings = (*SETTINGS, flights_cache, "roles.servers=2", 'tables.w.trace=["carrier=UA"]')
    job: Started = start(mpips_run(JOB, *options(settings)))
    job.until_training()
    (event,) = job.events("trace")
    (key,) = event["keys"]
    updates = Updates(job)
    job.until(lambda: updates.of(key), "an update of a key of the job file")
    assert updates.of(key)[0].before == [0.0]  # nothing was missed
    shown = asked(job, "trace", "w", "carrier=UA", "--last", "5")
    assert shown.count("carrier=UA") == 5

    assert 'done: table "w": 2 keys are traced now' in asked(job, "trace", "w", "carrier=AA")
    second = next(each for each in job.events("trace")[-1]["keys"] if each != key)
    job.until(lambda: updates.of(second), "an update of a key that was asked for")
    assert "carrier=AA" in asked(job, "trace", "w", "carrier=AA")

    if launcher.ulfm:
        (head,) = updates.servers(key)
        os.kill(next(rank["pid"] for rank in job.ranks() if rank["rank"] == head), signal.SIGKILL)
        job.until(lambda: len(updates.servers(key)) == 2, "an update by the copy of the server that was killed")
        for server in updates.servers(key):
            own = [update for update in updates.of(key) if update.server == server]
            gaps = [(one, other) for one, other in pairwise(own) if one.after != other.before and not other.missed]
            assert not gaps
    assert "no keys are traced now" in asked(job, "trace", "w", "--stop")
    job.process.send_signal(signal.SIGINT)
    assert job.end() == 130, job.said
    assert "Traceback" not in job.said
    workers = {rank for update in updates.of(key) for rank in [update.shares[0].rank]}
    assert len(workers) == 2
