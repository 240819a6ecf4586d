"""What `mpips` does before any rank is started."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpips.cli import doctor
from mpips.cli.launch import LauncherError

MAIN = [sys.executable, "-c", "from mpips.cli import main; main()"]


def mpips(*arguments: str, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*MAIN, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=folder)


def test_help_names_the_commands_and_imports_neither_numba_nor_mpi() -> None:
    program = "import sys, mpips.cli.app; print(sorted({'numba', 'mpi4py.MPI'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
    said = mpips("--help").stdout
    assert all(name in said for name in ("run", "inspect", "doctor"))


def test_mistakes_in_the_job_file_are_all_said_within_seconds_and_exit_is_1(job_file: Path) -> None:
    job_file.write_text(job_file.read_text().replace("rows", "rwos").replace("workers", "wokers"))
    began = time.monotonic()
    done = mpips("run", "job.toml", "--set", "algorithm.passes=0", folder=job_file.parent)
    assert time.monotonic() - began < 10
    assert done.returncode == 1
    assert 'job.toml:2: roles.wokers: unknown key; did you mean "workers"?' in done.stderr
    assert 'tables.w.rwos: unknown key; did you mean "rows"?' in done.stderr
    assert "--set algorithm.passes=0: algorithm.passes: must be a whole number ≥ 1, got 0" in done.stderr
    assert "Traceback" not in done.stderr


def test_more_roles_than_ranks_is_one_clear_message(job_file: Path) -> None:
    done = mpips("run", "job.toml", "--ranks", "3", folder=job_file.parent)
    assert done.returncode == 1
    assert done.stderr.startswith("mpips: the roles need 4 ranks")
    assert done.stderr.count("\n") == 1


def test_doctor_says_that_jobs_can_run_here() -> None:
    done = mpips("doctor")
    assert done.returncode == 0, done.stdout
    assert "Jobs can run here." in done.stdout
    assert all(name in done.stdout for name in ("MPI library", "mpirun", "ULFM", "cores", "/dev/shm", "numba", "h5py"))


def test_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def none() -> None:
        raise LauncherError("no mpirun found: install one with pip install 'mpips[mpi]'")

    monkeypatch.setattr(doctor, "find", none)
    monkeypatch.setattr(doctor, "library", lambda: None)
    assert doctor.examine() == 1
    assert "No job can run here" in capsys.readouterr().out
