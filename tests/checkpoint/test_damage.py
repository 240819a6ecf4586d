import shutil
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpips.checkpoint import CheckpointError, Generation, drop_old, generations
from mpips.checkpoint.layout import VERSION, server_folder, server_path
from mpips.checkpoint.master import write_master
from mpips.table import TableSpec

from .generation_writer import random_content, small_tables, write_generation, write_servers


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run folder with one generation of two servers."""
    run = tmp_path_factory.mktemp("whole")
    write_generation(run, 1, small_tables())
    return run


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(whole, tmp_path / "run")


def read_all(run):
    with Generation(generations(run)[0]) as generation:
        generation.verify(deep=True)
        return [block for name in generation.tables for blocks in generation.values(name) for block in blocks]


def files(run):
    return [generations(run)[0], server_path(run, 1, 1), server_path(run, 1, 2)]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_truncated_file_is_found_whatever_its_length(run, which):
    path = files(run)[which]
    data = path.read_bytes()
    lengths = {0, 1, 7, 8, 47, 48, 100, len(data) - 1, *np.linspace(0, len(data) - 1, 40, dtype=int).tolist()}
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError) as error:
            read_all(run)
        assert str(path) in str(error.value), length
        assert "truncated" in str(error.value), length
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_flipped_bytes_are_found_or_do_no_harm(run, which):
    path = files(run)[which]
    expected = read_all(run)
    data = path.read_bytes()
    seed = 7 + which
    print("seed", seed)  # noqa: T201
    rng = np.random.default_rng(seed)
    found = 0
    for place in rng.integers(0, len(data), 60):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << rng.integers(8))]) + data[place + 1 :])
        try:
            got = read_all(run)
        except CheckpointError:
            found += 1
        else:
            assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True)), place
    assert found > (40 if which else 0)


def test_a_flipped_byte_in_a_value_is_found_by_our_reader_and_by_plain_h5py(run):
    values = small_tables()["w"][1].values
    path = server_path(run, 1, 1)
    with h5py.File(path) as file:
        place = file["tables/w/values"].id.get_chunk_info(0).byte_offset
        first = int(file["tables/w/index"][0]["shard"]) * small_tables()["w"][0].shard_rows
    data = bytearray(path.read_bytes())
    assert bytes(data[place : place + 4]) == values[first].tobytes()
    data[place] ^= 1
    path.write_bytes(data)
    with Generation(generations(run)[0]) as generation:
        generation.verify()
        with pytest.raises(CheckpointError, match=r"server-1\.h5: damaged: a checksum does not match"):
            generation.verify(deep=True)
        with pytest.raises(CheckpointError, match=r"server-1\.h5: damaged: a checksum does not match"):
            generation.dense("w", first, first + 1)
    with h5py.File(generations(run)[0]) as file, pytest.raises(OSError, match=r"filter|Fletcher32"):
        file["tables/w/values"][:]


def test_a_missing_server_file_is_named(run):
    server_path(run, 1, 2).unlink()
    generation = Generation(generations(run)[0])
    with pytest.raises(CheckpointError, match=r"server-2\.h5: the file is missing"):
        generation.verify()
    generation.close()
    with h5py.File(generations(run)[0]) as file:
        assert np.isnan(file["tables/w/values"][:]).any()


@pytest.mark.parametrize("which", [0, 1])
def test_foreign_files_are_named_as_such(run, which):
    path = files(run)[which]
    size = path.stat().st_size
    path.write_text("epoch,loss\n1,0.5\n" * (size // 17 + 1))
    with pytest.raises(CheckpointError, match="not an HDF5 file"):
        read_all(run)
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(size)
    with pytest.raises(CheckpointError, match="an HDF5 file, but not"):
        read_all(run)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match=r"a folder, not a file|truncated"):
        read_all(run)


@pytest.mark.parametrize("which", [0, 1])
def test_another_format_version_is_named(run, which):
    path = files(run)[which]
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(CheckpointError, match=f"format version 99, but this mpips reads version {VERSION}"):
        read_all(run)


def test_a_server_file_of_another_generation_is_refused(run):
    write_generation(run, 2, small_tables())
    shutil.copy(server_path(run, 2, 1), server_path(run, 1, 1))
    with pytest.raises(CheckpointError, match=r"server-1\.h5: not the file that was written for"):
        Generation(generations(run)[1]).verify()


def test_old_generations_go_and_what_crashes_left_of_them(tmp_path):
    tables = small_tables()
    for number in (1, 2, 4):
        write_generation(tmp_path, number, tables)
    everything = {name: np.ones(table.shards) for name, (table, _) in tables.items()}
    for number in (3, 5):
        write_servers(tmp_path, number, tables, everything)
    for stale in (
        "generation-000002.h5.tmp",
        "generation-000004/server-9.h5.tmp",
        "generation-000005.h5.tmp",
    ):
        tmp_path.joinpath(stale).write_bytes(b"half")
    tmp_path.joinpath("result.json").write_text("{}")
    drop_old(tmp_path, 2)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [
        "generation-000002",
        "generation-000002.h5",
        "generation-000002/server-1.h5",
        "generation-000002/server-2.h5",
        "generation-000004",
        "generation-000004.h5",
        "generation-000004/server-1.h5",
        "generation-000004/server-2.h5",
        "generation-000005",
        "generation-000005.h5.tmp",
        "generation-000005/server-1.h5",
        "result.json",
    ]
    for path in generations(tmp_path):
        Generation(path).verify(deep=True)


def test_a_generation_being_dropped_is_whole_as_long_as_it_has_its_master(tmp_path, monkeypatch):
    for number in (1, 2):
        write_generation(tmp_path, number, small_tables())

    unlink = Path.unlink

    def crash(path, missing_ok=False):
        if path.name.startswith("server"):
            raise OSError(5, "Input/output error", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", crash)
    with pytest.raises(CheckpointError, match="Input/output error"):
        drop_old(tmp_path, 1)
    assert len(generations(tmp_path)) == 1
    assert server_folder(tmp_path, 1).is_dir()


def test_servers_write_their_files_at_the_same_time(tmp_path):
    spec = TableSpec(name="w", rows=200_000, slots=1)
    content = random_content(spec, np.random.default_rng(1))
    threads = [
        threading.Thread(
            target=write_servers,
            args=(
                tmp_path,
                1,
                {"w": (spec, content)},
                {"w": np.where(np.arange(spec.shards) % 3 == i, i, -1)},
            ),
        )
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Generation(write_master(tmp_path, 1, [0, 1, 2], [spec], "", {})) as generation:
        np.testing.assert_array_equal(generation.dense("w", 0, spec.rows)[0], content.values)
