"""What a run leaves is found by its mark and its lock, and nothing else is touched."""

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpips.cli import cleanup
from mpips.cli.cleanup import MARK, Keeper, Scratch, processes, sweep

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scratch]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cleanup, "SHARED_MEMORY", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    made = Scratch()
    yield made
    made.clear()


def sleeper(mark: str | None) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(SLEEP, env=os.environ | ({MARK: mark} if mark else {}))
    deadline = time.monotonic() + 10
    while b"time.sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():  # until it has its own environment
        assert time.monotonic() < deadline
    return process


def test_processes_are_found_by_their_mark(scratch: Scratch) -> None:
    ours, longer, other = sleeper(scratch.name), sleeper(scratch.name + "0"), sleeper(None)
    try:
        assert processes(scratch.name) == [ours.pid]
        assert scratch.end() == [ours.pid]
        assert ours.wait(5) == -9
        assert longer.poll() is None
        assert other.poll() is None
    finally:
        for process in (ours, longer, other):
            process.kill()
            process.wait()


def test_processes_may_end_by_themselves(scratch: Scratch) -> None:
    process = subprocess.Popen(["sleep", "0.3"], env=os.environ | {MARK: scratch.name})
    try:
        assert scratch.end(patience=10) == []
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


def test_folders_are_removed_with_what_is_in_them(scratch: Scratch) -> None:
    (scratch.shared_memory / "sm_segment.vm.0.1").write_text("x")
    (scratch.temporary / "ompi.1").mkdir()
    scratch.clear()
    assert not scratch.shared_memory.exists()
    assert not scratch.temporary.exists()


def test_files_of_the_runs_processes_in_shared_memory_are_removed(scratch: Scratch) -> None:
    ours, other = cleanup.SHARED_MEMORY / "Intel_MPI_1", cleanup.SHARED_MEMORY / "Intel_MPI_2"
    for path in (ours, other):
        path.write_bytes(bytes(4096))
    program = f"import mmap, time; f = open({str(ours)!r}, 'r+b'); m = mmap.mmap(f.fileno(), 0); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {MARK: scratch.name})
    try:
        deadline = time.monotonic() + 10
        while not cleanup.shared_memory_of(process.pid):
            assert time.monotonic() < deadline
        scratch.clear()
        assert process.wait(5) == -9
        assert not ours.exists()
        assert other.exists()
    finally:
        process.kill()
        process.wait()


def test_what_ranks_of_mpich_left_that_died_while_they_started_is_removed(scratch: Scratch) -> None:
    left, older, used = (cleanup.SHARED_MEMORY / f"mpich_shm_{name}_0" for name in ("1a", "2b", "3c"))
    for path in (left, older, used):
        path.write_bytes(bytes(4096))
    began = (scratch.temporary / cleanup.LOCK).stat().st_mtime
    os.utime(older, (began - 60, began - 60))
    with used.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        scratch.clear()
    assert not left.exists()
    assert older.exists()
    assert used.exists()


def test_no_folder_for_shared_memory_is_made_when_mpi_does_not_use_it(scratch: Scratch) -> None:
    made = Scratch(shared_memory=False)
    assert made.temporary.exists()
    assert not made.shared_memory.exists()
    made.clear()
    assert not made.temporary.exists()


def test_run_that_lives_is_not_swept(scratch: Scratch) -> None:
    assert sweep() == []
    assert scratch.temporary.exists()


def test_run_whose_lock_is_free_is_swept_with_its_processes(scratch: Scratch) -> None:
    assert scratch._lock is not None
    os.close(scratch._lock)
    scratch._lock = None
    process = sleeper(scratch.name)
    try:
        assert sweep() == [scratch.name]
        assert process.wait(5) == -9
        assert not scratch.temporary.exists()
        assert not scratch.shared_memory.exists()
    finally:
        process.kill()
        process.wait()


def test_dismissed_keeper_leaves_without_clearing(scratch: Scratch) -> None:
    keeper = Keeper(scratch)
    keeper.dismiss()
    assert scratch.temporary.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(keeper._pid, 0)
