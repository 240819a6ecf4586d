"""Under an MPI without ULFM, or started without it, no rank is replaced: a job says so, and the first death ends it."""

import os
import signal

import pytest

from mpips.checkpoint import generations
from mpips.cli.launch import Launcher
from tests.jobs.conftest import FOREVER, Start
from tests.jobs.started import Started, asked

SOON = 15.0
pytestmark = pytest.mark.every_mpi


def test_a_job_with_servers_and_spares_grows_and_shrinks_but_has_no_copies_and_gets_no_new_ranks(plain: Start) -> None:
    job: Started = plain(FOREVER, "roles.servers=2", "roles.spares=1", ranks=6)
    job.until_training(1)
    assert "no copies are kept and no spare replaces a rank" in job.notes()
    assert "done: 2 to 3 servers" in asked(job, "scale", "servers=3")
    job.until_training(len(job.events("epoch")) + 1)
    assert "done: 3 to 2 servers" in asked(job, "scale", "servers=2")
    assert "new ranks take Open MPI 5 with ULFM" in asked(job, "scale", "spares=+1", code=1)
    os.kill(job.pid_of("spare"), signal.SIGKILL)
    assert job.end(SOON) != 0, job.said


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_mpips_run_says_that_a_rank_has_died_and_what_to_do(run: Start, launcher: Launcher, role: str) -> None:
    if launcher.ulfm:
        pytest.skip("under this MPI ranks outlive others")
    job: Started = run(FOREVER, "checkpoint.every=0.3")
    job.until(lambda: generations(job.run), "a generation")
    os.kill(job.pid_of(role), signal.SIGKILL)
    assert job.end(SOON) == 1, job.said
    assert "a rank died, and without ULFM that ends the job" in job.complaint
    assert "go on from its last checkpoint by --resume" in job.complaint
    assert "BAD TERMINATION" not in job.said
