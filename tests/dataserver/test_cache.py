import os
import shutil
import socket

import h5py
import numpy as np
import pytest

from mpips.dataserver import source
from mpips.dataserver.batch import Batch
from mpips.dataserver.errors import DataError
from mpips.dataserver.source import prepare

from .reading import csv, libsvm, read_all, write

TEXT = "".join(f"{i % 2} {i}:0.5 {i + 7}:1\n" for i in range(3000))


@pytest.fixture
def builds(monkeypatch):
    """A list that grows by one with every cache that is built."""
    done = []
    build = source._build

    def counted(*arguments):
        done.append(arguments)
        build(*arguments)

    monkeypatch.setattr(source, "_build", counted)
    return done


def cache_of(folder):
    (path,) = (folder / ".mpips-cache").iterdir()
    return path


def test_the_next_run_uses_the_cache(tmp_path, builds):
    spec = libsvm(tmp_path, TEXT)
    assert read_all(spec, tmp_path) == read_all(spec, tmp_path)
    assert len(builds) == 1


def test_the_next_run_finds_the_dictionary_in_the_cache(tmp_path, builds):
    spec = csv(tmp_path, "y,a\n1,u\n0,v\n", "a")
    names = [
        [prepared.dictionary.name(i) for i in range(prepared.features)]
        for prepared in (prepare(spec, tmp_path, 0, 1) for _ in range(2))
    ]
    assert names[0] == names[1]
    assert sorted(names[0]) == ["a=u", "a=v"]
    assert len(builds) == 1


@pytest.mark.parametrize("settings", [{"seed": 2}, {"batch": 5}, {"malformed": "skip"}])
def test_other_settings_have_another_cache(settings, tmp_path, builds):
    for each in ({}, settings, {}, settings):
        read_all(libsvm(tmp_path, TEXT, **each) if not builds else source.DataSpec(
            format="libsvm", files=("x.libsvm",), **each), tmp_path)  # fmt: skip
    assert len(builds) == 2


def test_a_changed_data_file_has_its_cache_built_again_in_place(tmp_path, builds):
    spec = libsvm(tmp_path, TEXT)
    read_all(spec, tmp_path)
    path = write(tmp_path, TEXT.replace("0.5", "1.5"), "x.libsvm")
    os.utime(path, ns=(0, 12345))
    assert read_all(spec, tmp_path)[0][0][1][0][1] == 1.5
    assert len(builds) == 2
    assert cache_of(tmp_path).exists()


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def other(path):
    path.write_text("not HDF5")


def forget_places(path):
    with h5py.File(path, "r+") as file:
        del file["places"]


def forget_batches(path):
    with h5py.File(path, "r+") as file:
        file["blobs"].resize((100,))


def forget_summary(path):
    with h5py.File(path, "r+") as file:
        file.attrs["summary"] = np.bytes_(b"{}")


@pytest.mark.parametrize("damage", [truncate, empty, other, forget_places, forget_batches, forget_summary])
def test_a_damaged_cache_is_built_again(damage, tmp_path, builds):
    spec = libsvm(tmp_path, TEXT)
    rows = read_all(spec, tmp_path)
    damage(cache_of(tmp_path))
    assert read_all(spec, tmp_path) == rows
    assert len(builds) == 2


def test_a_cache_that_was_damaged_in_the_middle_is_built_again_when_this_is_noticed(tmp_path, builds):
    spec = libsvm(tmp_path, TEXT)
    rows = read_all(spec, tmp_path)
    path = cache_of(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert read_all(spec, tmp_path) == rows
    assert len(builds) == 2


def test_a_folder_that_cannot_be_written_is_told_with_the_setting(tmp_path):
    write(tmp_path, "a file", "taken")
    with pytest.raises(DataError, match=r"taken: the cache of the data cannot be written: .*; set data\.cache to"):
        prepare(libsvm(tmp_path, TEXT, cache="taken"), tmp_path, 0, 1)


def test_a_full_disk_is_told_with_the_setting_and_nothing_is_left(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(DataError, match=r"cannot be written: No space left on device; set data\.cache to"):
        prepare(libsvm(tmp_path, TEXT), tmp_path, 0, 1)
    assert list((tmp_path / ".mpips-cache").iterdir()) == []


def test_a_build_that_fails_leaves_nothing_behind_and_the_next_removes_what_a_killed_one_left(tmp_path):
    with pytest.raises(DataError):
        prepare(libsvm(tmp_path, TEXT + "oops\n"), tmp_path, 0, 1)
    assert list((tmp_path / ".mpips-cache").iterdir()) == []
    spec = libsvm(tmp_path, TEXT)
    prepare(spec, tmp_path, 0, 1).close()
    name = cache_of(tmp_path).name
    killed = cache_of(tmp_path).rename(tmp_path / ".mpips-cache" / f".{name}.{socket.gethostname()}.{2**22 + 1}")
    prepare(spec, tmp_path, 0, 1).close()
    assert not killed.exists()
    assert cache_of(tmp_path).name == name


def test_a_batch_is_read_into_the_start_of_a_larger_buffer(tmp_path):
    prepared = prepare(libsvm(tmp_path, TEXT), tmp_path, 0, 1)
    size = prepared.size(0)
    large = np.full(size + 64, 7, np.uint8)
    prepared.read(0, 1, large)
    assert len(Batch.unpack(large)) > 0
    assert (large[size:] == 7).all()
