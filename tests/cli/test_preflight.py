"""What is found before a job starts."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from mpips.cli import preflight
from mpips.cli.preflight import ArenaError, RunFolder, RunFolderError, check_memory, check_roles, number_of_ranks
from mpips.job import Job, load
from mpips.views.view import RolesError


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def job_of(job_file: Path, *overrides: str) -> Job:
    return load(job_file, [f"checkpoint.folder={job_file.parent}/run", *overrides])


def test_ranks_are_as_many_as_the_roles_need(job_file: Path) -> None:
    assert number_of_ranks(job_of(job_file)) == 4
    assert number_of_ranks(job_of(job_file, "roles.data_servers=0", "roles.spares=3", "roles.workers=5")) == 10


def test_open_roles_get_a_rank_each_at_least(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    monkeypatch.setattr(preflight, "cores", lambda: 1)
    assert number_of_ranks(job_of(job_file, "roles={}")) == 3
    assert number_of_ranks(job_of(job_file, "roles={servers=5}")) == 7
    monkeypatch.setenv("SLURM_NTASKS", "12")
    assert number_of_ranks(job_of(job_file, "roles={servers=5}")) == 12


def test_more_roles_than_ranks_are_refused(job_file: Path) -> None:
    with pytest.raises(RolesError, match="4 ranks"):
        check_roles(job_of(job_file), 3)


def test_arenas_larger_than_shared_memory_are_refused(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 64_000_000))
    job = job_of(job_file, "memory.server='1 GB'", "memory.worker='64 MB'")
    with pytest.raises(ArenaError, match=r"1,065 MB, /dev/shm has 64 MB free: lower \[memory\]"):
        check_memory(job, check_roles(job, 4))
    small = job_of(job_file, "memory.server='32 MB'", "memory.data_server='16 MB'", "memory.worker='1 MB'")
    check_memory(small, check_roles(small, 4))


def test_run_folder_is_freed_of_an_earlier_runs_result(job_file: Path) -> None:
    run = job_file.parent / "run"
    run.mkdir()
    for name in ("result.json", "ranks.json", "generation-000001.h5"):
        (run / name).write_text("{}")
    RunFolder(job_of(job_file)).release()
    assert sorted(os.listdir(run)) == ["generation-000001.h5"]


def test_run_folder_is_held_by_one_run(job_file: Path) -> None:
    folder = RunFolder(job_of(job_file))
    with pytest.raises(RunFolderError, match="another job runs in this folder"):
        RunFolder(job_of(job_file))
    folder.release()
    RunFolder(job_of(job_file)).release()


def test_run_folder_that_cannot_be_made_is_refused(job_file: Path) -> None:
    (job_file.parent / "run").write_text("a file")
    with pytest.raises(
        RunFolderError, match=r"can't be the run folder: File exists: choose another by checkpoint\.folder"
    ):
        RunFolder(job_of(job_file))


def test_the_log_of_before_is_kept_when_a_job_goes_on(job_file: Path) -> None:
    folder = RunFolder(job_of(job_file))
    for goes_on, kept in ((True, 1), (True, 2), (False, 0)):
        folder.file("metrics.jsonl").write_text("{}\n")
        folder.release()
        folder = RunFolder(job_of(job_file), goes_on=goes_on)
        assert not folder.file("metrics.jsonl").exists()
        assert len(list(folder.path.glob("metrics.*.jsonl"))) == kept
    folder.release()
