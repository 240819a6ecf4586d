import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from mpips.checkpoint import CheckpointError, Generation, drop_old, generations
from mpips.checkpoint.layout import server_folder
from mpips.checkpoint.master import write_master
from mpips.checkpoint.write import ServerFile
from mpips.table import TableSpec

from .generation_writer import random_content, small_tables, write_generation


def mounted(path, options):
    """Mount a tmpfs there, or skip the test and say why."""
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    mounted(disk, "size=2m")
    yield disk
    subprocess.run(["umount", disk], check=True)


def open_files():
    return len(os.listdir("/proc/self/fd"))


def test_a_full_disk_is_said_and_the_generation_before_stays(tiny_disk):
    tables = small_tables()
    first = write_generation(tiny_disk, 1, tables)
    before = open_files()
    for _ in range(3):
        with pytest.raises(CheckpointError, match="No space left on device; free some space") as error:
            write_generation(tiny_disk, 2, {"w": large_table()})
        assert str(server_folder(tiny_disk, 2)) in str(error.value)
        assert list(server_folder(tiny_disk, 2).iterdir()) == []
    assert open_files() == before
    assert generations(tiny_disk) == [first]
    with Generation(first) as generation:
        generation.verify(deep=True)


def test_a_disk_that_fills_before_the_master_leaves_no_master(tiny_disk):
    spec, content = small_tables()["w"]
    file = ServerFile(tiny_disk, 1, 1)
    for shard in range(spec.shards):
        lo, hi = spec.shard_range(shard)
        file.dense(spec, shard, content.values[lo:hi], content.state[lo:hi])
    file.close()
    usage = os.statvfs(tiny_disk)
    tiny_disk.joinpath("ballast").write_bytes(bytes(usage.f_bavail * usage.f_bsize))
    for _ in range(3):
        with pytest.raises(CheckpointError, match=r"generation-000001\.h5: .*No space left on device"):
            write_master(tiny_disk, 1, [1], [spec], "x" * 100_000, {})
    assert sorted(path.name for path in tiny_disk.iterdir()) == ["ballast", "generation-000001"]
    tiny_disk.joinpath("ballast").unlink()
    with Generation(write_master(tiny_disk, 1, [1], [spec], "", {})) as generation:
        generation.verify(deep=True)


def test_a_limit_on_file_size_is_said(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(CheckpointError, match=r"File too large; raise the limit on file size \(ulimit -f\)"):
            write_generation(tmp_path, 1, {"w": large_table()}, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(server_folder(tmp_path, 1).iterdir()) == []


def test_a_read_only_disk_is_said(tmp_path):
    disk = tmp_path / "disk"
    mounted(disk, "ro")
    try:
        with pytest.raises(CheckpointError, match=r"Read-only file system; set checkpoint\.folder"):
            ServerFile(disk, 1, 1)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_said(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="Permission denied; make it writable"):
            ServerFile(tmp_path, 1, 1)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_folder_s_place_is_said(tmp_path):
    tmp_path.joinpath("run").write_text("")
    with pytest.raises(CheckpointError, match=r"Not a directory; set checkpoint\.folder"):
        ServerFile(tmp_path / "run", 1, 1)


def test_a_failed_rename_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    file = ServerFile(tmp_path, 1, 1)
    monkeypatch.setattr("mpips.checkpoint.layout.os.replace", fail)
    with pytest.raises(CheckpointError, match=r"server-1\.h5: cannot write the checkpoint: Input/output error"):
        file.close()
    assert list(server_folder(tmp_path, 1).iterdir()) == []


def test_a_name_is_given_to_what_is_on_the_disk_and_nothing_goes_before_what_replaces_it_is_there(
    tmp_path, monkeypatch
):
    """In the order in which a power cut leaves a generation that is whole."""
    write_generation(tmp_path, 1, small_tables())
    done = []
    sync, replace, unlink = os.fsync, os.replace, os.unlink

    def note(what, path):
        done.append((what, str(path).removeprefix(f"{tmp_path}/")))

    def noted_sync(descriptor):
        note("sync", os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", lambda old, new: (replace(old, new), note("name", new)))
    monkeypatch.setattr(os, "unlink", lambda path, **more: (unlink(path, **more), note("drop", path)))
    write_generation(tmp_path, 2, small_tables())
    drop_old(tmp_path, 1)
    folder = "generation-000002"
    files = [f"{folder}/server-{rank}.h5" for rank in (1, 2)]
    assert done[:9] == [
        *(step for file in files for step in (("sync", f"{file}.tmp"), ("name", file), ("sync", folder))),
        ("sync", f"{folder}.h5.tmp"),
        ("name", f"{folder}.h5"),
        ("sync", str(tmp_path)),
    ]
    assert done[9] == ("drop", "generation-000001.h5")
    assert {what for what, _ in done[9:]} == {"drop"}


def test_a_process_that_met_a_full_disk_ends_cleanly(tiny_disk):
    script = f"""
import numpy as np
from pathlib import Path
from mpips.checkpoint import CheckpointError
from mpips.checkpoint.write import ServerFile
from mpips.table import TableSpec
spec = TableSpec(name="w", rows=1 << 22)
file = ServerFile(Path({str(tiny_disk)!r}), 1, 1)
try:
    for shard in range(spec.shards):
        file.dense(spec, shard, np.ones(spec.shard_rows), np.empty(0))
except CheckpointError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No space left on device" in done.stdout


def large_table():
    spec = TableSpec(name="w", rows=1 << 20)
    return spec, random_content(spec, np.random.default_rng(0))
