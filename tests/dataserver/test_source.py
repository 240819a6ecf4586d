import gzip
import os
import random
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mpips.dataserver import source
from mpips.dataserver import text as text_module
from mpips.dataserver.dictionary import Dictionary
from mpips.dataserver.errors import DataError
from mpips.dataserver.source import prepare
from mpips.dataserver.spec import DataSpec, FeatureSpec, TestSplit

from .reading import batches, csv, libsvm, read_all, write

FLIGHTS = Path(__file__).parents[2] / "inputs" / "data"


def numbered(rows: int, start: int = 0) -> str:
    """Rows that have their own number as their key, some of them long, with blank lines between."""
    return "".join(f"{i % 2} {i}:1\n" + "\n" * (i % 3) for i in range(start, start + rows))


def keys_of(rows):
    return [features[0][0] for _, features in rows]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("files", [1, 2, 5])
@pytest.mark.parametrize("name", ["{}.libsvm", "{}.libsvm.gz"])
def test_every_row_is_in_one_part_and_test_rows_are_where_the_split_puts_them(
    parts, files, name, tmp_path, monkeypatch
):
    monkeypatch.setattr(text_module, "CHUNK_BYTES", 500)
    for number in range(files):
        write(tmp_path, numbered(300, 300 * number), name.format(number))
    spec = DataSpec(format="libsvm", files=(name.format("*"),), test=TestSplit(every=5, offset=4), batch=7)
    train, test = [], []
    for part in range(parts):
        some_train, some_test = read_all(spec, tmp_path, part, parts)
        assert keys_of(some_test) == sorted(keys_of(some_test))
        assert parts > files or len(some_train) > 0
        train += some_train
        test += some_test
    assert sorted(keys_of(test)) == [i for i in range(300 * files) if i % 5 == 4]
    assert sorted(keys_of(train)) == [i for i in range(300 * files) if i % 5 != 4]


def test_skipped_rows_keep_their_number_so_that_the_split_stays(tmp_path):
    lines = numbered(100).replace("1 7:1\n", "oops\n").replace("1 19:1\n", "oops\n")
    _, test = read_all(libsvm(tmp_path, lines, test=TestSplit(every=5, offset=4), malformed="skip"), tmp_path)
    assert keys_of(test) == [i for i in range(100) if i % 5 == 4 and i != 19]


def test_test_files_give_the_test_rows(tmp_path):
    write(tmp_path, numbered(50, 1000), "test.libsvm")
    train, test = read_all(libsvm(tmp_path, numbered(20), test_files=("test.libsvm",)), tmp_path)
    assert sorted(keys_of(train)) == list(range(20))
    assert keys_of(test) == list(range(1000, 1050))


def test_a_file_cannot_be_training_and_test_file(tmp_path):
    with pytest.raises(DataError, match=r"x.libsvm: is both in data.files and in data.test_files"):
        prepare(libsvm(tmp_path, "1 1:1\n", test_files=("./x.libsvm",)), tmp_path, 0, 1)


def test_rows_of_a_part_are_shuffled_by_the_seed_and_batches_have_one_size(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "WINDOW_BYTES", 4000)
    write(tmp_path, numbered(1000), "x.libsvm")
    orders = []
    for seed in (1, 1, 2):
        spec = DataSpec(format="libsvm", files=("x.libsvm",), batch=32, seed=seed)
        prepared = prepare(spec, tmp_path, 0, 1)
        assert [len(batch) for batch in batches(prepared)] == [32] * 31 + [8]
        orders.append(keys_of(read_all(spec, tmp_path)[0]))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0]) == list(range(1000))


def test_memory_stays_bounded_whatever_the_size_of_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(source, "WINDOW_BYTES", 1 << 18)

    def peak(rows: int) -> int:
        spec = libsvm(tmp_path, numbered(rows), f"{rows}.libsvm", batch=256)
        tracemalloc.start()
        prepare(spec, tmp_path, 0, 1).close()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1000)  # compiles
    assert peak(160_000) < 1.5 * peak(20_000)


def test_rows_longer_than_a_chunk_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "CHUNK_BYTES", 16)
    long = " ".join(f"{i}:1" for i in range(500))
    train, _ = read_all(libsvm(tmp_path, f"1 {long}\n0 7:1\n1 {long}"), tmp_path)
    assert sorted(len(features) for _, features in train) == [1, 500, 500]


def test_a_row_without_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "LONGEST_ROW", 1 << 20)
    monkeypatch.setattr(text_module, "CHUNK_BYTES", 1 << 18)
    with pytest.raises(DataError, match="line 2: a row of more than 1 MB: a quoted cell that is never closed"):
        prepare(csv(tmp_path, 'y,a\n1,"' + "x,\n" * 1_000_000, "a"), tmp_path, 0, 1)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("x.libsvm", b"", "is empty"),
        ("x.libsvm", b"\n# nothing\n\n", "has no rows"),
        ("x.libsvm", b"1 1:1\n0 2:1\n\x00\xff\x01", "line 3: a zero byte: the file is not text"),
        ("x.libsvm", gzip.compress(b"1 1:1\n", mtime=0), "is gzip data: give it a name that ends in .gz"),
        ("x.libsvm", "1 1:1\n".encode("utf-16"), "line 1: a zero byte: the file is not text"),
        ("x.gz", b"", "is empty"),
        ("x.gz", b"1 1:1\n", "the gzip data are damaged, or the file is not gzip"),
        (
            "x.gz",
            gzip.compress(random.Random(1).randbytes(5000).hex().encode(), mtime=0)[:3000],
            "the file is truncated",
        ),
        ("x.gz", gzip.compress(b"1 1:1\n" * 1000, mtime=0)[:-8] + b"\0" * 8, "the gzip data are damaged"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_told(name, data, what, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as error:
        prepare(DataSpec(format="libsvm", files=(name,)), tmp_path, 0, 1)
    assert str(error.value).startswith(f"{tmp_path}/{name}: ")
    assert what in str(error.value)
    assert not list(tmp_path.glob(".mpips-cache/*"))


def test_a_csv_file_with_a_header_alone_has_no_rows(tmp_path):
    with pytest.raises(DataError, match=r"x.csv: has no rows"):
        prepare(csv(tmp_path, "y,a", "a"), tmp_path, 0, 1)


def test_files_that_are_not_there_or_are_folders_are_told(tmp_path):
    (tmp_path / "folder").mkdir()
    for name, what in (
        ("no.libsvm", "no.libsvm: no such file"),
        ("no*.libsvm", r'no file matches "no\*.libsvm" in'),
        ("folder", r'folder: is a folder; to read all files in it write "folder/\*"'),
    ):
        with pytest.raises(DataError, match=what):
            prepare(DataSpec(format="libsvm", files=(name,)), tmp_path, 0, 1)


def test_a_file_that_may_not_be_read_is_told(tmp_path):
    (tmp_path / "x.libsvm").symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=r"x.libsvm: cannot be read: "):
        prepare(DataSpec(format="libsvm", files=("x.libsvm",), cache=str(tmp_path)), tmp_path, 0, 1)


def flights(tmp_path, **settings):
    text = """{"format": "csv", "files": ["flights.csv.gz"], "label": "arr_delay > 15", "test": {"every": 5,
    "offset": 4}, "features": {"keys": "dictionary", "fields": ["carrier", "origin", "dest", "tailnum", ["carrier",
    "flight"], ["month", "day"], "hour", ["dest", "hour"], ["carrier", "dest", "hour"], ["month", "day", "hour"],
    ["month", "day", "origin", "hour"], ["month", "day", "carrier"]]}}"""
    return msgspec.structs.replace(msgspec.json.decode(text, type=DataSpec), cache=str(tmp_path), **settings)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_flights_are_as_their_description_says(parts, tmp_path):
    prepared = [prepare(flights(tmp_path), FLIGHTS, part, parts) for part in range(parts)]
    assert sum(each.train_rows for each in prepared) == 261_877
    assert sum(each.test_rows for each in prepared) == 65_469
    assert max(each.train_rows for each in prepared) < 1.2 * min(each.train_rows for each in prepared)
    merged = Dictionary.merge([each.dictionary for each in prepared])
    assert len(merged) == 45_518
    positive = 0.0
    for each in prepared:
        for batch in batches(each):
            assert (np.diff(batch.indptr) == 12).all()
            assert (np.diff(merged.ids(batch.keys).astype(np.int64)) > 0).all()
            positive += batch.labels.sum()
    assert round(positive / 327_346, 3) == 0.237


def test_a_relative_folder_is_as_good_as_an_absolute_one(tmp_path, monkeypatch):
    spec = libsvm(tmp_path, "1 5:1\n")
    monkeypatch.chdir(tmp_path)
    assert read_all(spec, Path())[0] == read_all(spec, tmp_path)[0] == [(1.0, ((5, 1.0),))]
    assert len(os.listdir(".mpips-cache")) == 1


def test_a_column_may_be_in_many_fields(tmp_path):
    spec = csv(tmp_path, "y,a,b\n1,u,v\n", "a", ("a", "b"), ("b", "a"), ("a", "a"))
    prepared = prepare(spec, tmp_path, 0, 1)
    assert prepared.features == 4
    assert isinstance(spec.features, FeatureSpec)
