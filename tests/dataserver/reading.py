"""What the tests of the data-reading room share: write files, prepare them, and read every row back."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from mpips.dataserver.batch import Batch
from mpips.dataserver.source import Prepared, prepare
from mpips.dataserver.spec import DataSpec, FeatureSpec

Row = tuple[float, tuple[tuple[int, float], ...]]  # label, and (key, value) of every feature


def write(folder: Path, text: str | bytes, name: str) -> Path:
    """Write a data file, compressed when its name ends in .gz."""
    data = text.encode() if isinstance(text, str) else text
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def libsvm(folder: Path, text: str | bytes, name: str = "x.libsvm", **settings: Any) -> DataSpec:
    """A libsvm file with that text, as the job file would say it."""
    write(folder, text, name)
    return DataSpec(format="libsvm", files=(name,), **settings)


def csv(
    folder: Path, text: str | bytes, *fields: Any, label: str = "y", keys: Any = "dictionary", **settings: Any
) -> DataSpec:
    """A csv file with that text, as the job file would say it; one-hot of the fields."""
    name = settings.pop("name", "x.csv")
    write(folder, text, name)
    features = FeatureSpec(fields=fields, keys=keys)
    return DataSpec(format="csv", files=(name,), label=label, features=features, **settings)


def batches(prepared: Prepared) -> list[Batch]:
    """All batches, training first."""
    read = []
    for index in range(prepared.train + prepared.test):
        blob = np.empty(prepared.size(index), np.uint8)
        prepared.read(index, 1, blob)
        read.append(Batch.unpack(blob))
    return read


def rows_of(batch: Batch) -> list[Row]:
    """The rows of a batch, by key."""
    rows = []
    for i, label in enumerate(batch.labels.tolist()):
        features = slice(batch.indptr[i], batch.indptr[i + 1])
        keys = batch.keys[batch.indices[features]].tolist()
        values = batch.values[features].tolist() if batch.values.size else [1.0] * len(keys)
        rows.append((label, tuple(zip(keys, values, strict=True))))
    return rows


def read_all(spec: DataSpec, folder: Path, part: int = 0, parts: int = 1) -> tuple[list[Row], list[Row]]:
    """All training rows and all test rows of a part."""
    prepared = prepare(spec, folder, part, parts)
    all_batches = batches(prepared)
    train = [row for batch in all_batches[: prepared.train] for row in rows_of(batch)]
    test = [row for batch in all_batches[prepared.train :] for row in rows_of(batch)]
    assert (len(train), len(test)) == (prepared.train_rows, prepared.test_rows)
    prepared.close()
    return train, test
