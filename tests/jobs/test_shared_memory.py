"""A /dev/shm that is too small for the arenas; it is the job's own, and what is left there is the job's."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from mpips.cli.launch import Launcher
from tests.jobs.conftest import Start
from tests.jobs.started import FOLDERS, QUICK, SOON, Started, mpips_run, mpirun

SMALL = "mount -t tmpfs -o size=48m tmpfs /dev/shm"


@pytest.fixture(autouse=True)
def small_shared_memory() -> None:
    """Skip where no process can be given a small /dev/shm of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a process a small /dev/shm")
    tried = subprocess.run(["unshare", "-m", "sh", "-c", SMALL], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"a small /dev/shm can't be mounted here: {tried.stderr.strip()}")


def with_small_shared_memory(command: list[str]) -> list[str]:
    """The command with such a /dev/shm, where Open MPI has its way; `left` lists what is there in the end."""
    before, after = f"{SMALL} && unset {' '.join(FOLDERS)}", "code=$?; ls -A /dev/shm > left; exit $code"
    return ["unshare", "-m", "sh", "-c", f"{before} && {shlex.join(command)}; {after}"]


@pytest.mark.parametrize("how", ["mpips run", "mpirun"])
def test_arenas_larger_than_it_are_refused(
    start: Start, job_file: Path, tmp_path: Path, launcher: Launcher, how: str
) -> None:
    command = mpips_run(job_file) if how == "mpips run" else mpirun(launcher, 4, "-m", "mpips", job_file, options=QUICK)
    job: Started = start(with_small_shared_memory(command))
    assert job.end(SOON) not in (0, None), job.said
    # of 50 MB some are MPI's own when the ranks of a plain mpirun look
    assert re.search(r"the arenas of a node take 145 MB, /dev/shm has (50|4\d|3\d|2\d) MB free", job.complaint)
    assert "lower [memory]" in job.complaint
    assert (tmp_path / "left").read_text() == ""


@pytest.mark.every_mpi
@pytest.mark.parametrize("how", ["mpips run", "mpirun"])
def test_default_arenas_fit_into_it_and_leave_nothing(
    start: Start, job_file: Path, tmp_path: Path, launcher: Launcher, how: str
) -> None:
    job_file.write_text(job_file.read_text().partition("[memory]")[0])
    command = mpips_run(job_file) if how == "mpips run" else mpirun(launcher, 4, "-m", "mpips", job_file, options=QUICK)
    job: Started = start(with_small_shared_memory(command))
    assert job.end() == 0, job.said
    assert job.result()["metrics"]["auc"] > 0.8
    assert (tmp_path / "left").read_text() == ""
