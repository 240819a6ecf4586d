"""Real jobs that lose workers, and a server with one, or whose workers stand still: the others do their work, and every
row counts as often as there are passes.
"""

import os
import signal

import pytest

from tests.jobs.conftest import TRAIN_ROWS, Start
from tests.jobs.started import Started

PASSES = 60
LONG = f"algorithm.passes={PASSES}"
pytestmark = pytest.mark.replacement


@pytest.mark.parametrize(("policy", "roles"), [("replace", ["worker", "server"]), ("redistribute", ["worker"])])
def test_a_job_whose_worker_is_killed_does_all_its_work(run: Start, policy: str, roles: list[str]) -> None:
    changes = ("roles.servers=2", "roles.workers=2", f"roles.spares={len(roles)}")
    job: Started = run(LONG, *changes, f"recovery.on_worker_loss={policy}")
    job.until_training(3)
    for role in roles:
        os.kill(job.pid_of(role), signal.SIGKILL)
    assert job.end(60) == 0, job.said
    result = job.result()
    assert result["exit"] == "finished"
    assert result["examples"] == PASSES * TRAIN_ROWS
    assert result["metrics"]["auc"] > 0.8
    assert sorted(event["epoch"] for event in job.events("epoch")) == list(range(1, PASSES + 1))
    stages = sorted(event["stage"] for event in job.events("recovery"))
    assert stages == sorted(["detected", "view", "acknowledged", "whole"] * len(roles))


def test_a_worker_that_stands_still_holds_nobody_up_and_goes_on_when_it_can(run: Start) -> None:
    job: Started = run(LONG, "roles.workers=2", "recovery.on_worker_loss=redistribute")
    job.until_training(3)
    still = job.pid_of("worker")
    os.kill(still, signal.SIGSTOP)
    try:
        job.until(lambda: job.events("straggler"), "another to do its work")
        job.until_training(len(job.events("epoch")) + 10)
    finally:
        os.kill(still, signal.SIGCONT)
    assert job.end(60) == 0, job.said
    assert job.result()["examples"] == PASSES * TRAIN_ROWS
    assert not job.events("lost")
