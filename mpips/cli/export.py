"""A table's values in a file for other programs: NumPy, a spreadsheet, scikit-learn."""

import csv
import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpips.checkpoint import CheckpointError, Generation

COLUMNS = 1 << 30  # that a model for scikit-learn has at most: it has a weight for each, whatever keys there are
CROSS = "×"  # between the columns of a field, and between their cells


def export(generation: Generation, tables: Sequence[str], path: Path) -> None:
    """Write the values of a table to a file, in the format that its name ends with; it appears as a whole.

    Raises
    ------
    CheckpointError
        when there are several tables, the format is none of these or can't hold the table, or the file can't be
        written.
    """
    if len(tables) != 1:
        raise CheckpointError(f"{path}: choose the table to export with --table: {', '.join(tables)}")
    writers: dict[str, Callable[[Generation, str, Path], None]]
    writers = {".npy": _export_npy, ".csv": _export_csv, ".joblib": _export_joblib}
    if path.suffix not in writers:
        raise CheckpointError(f"{path}: can export to .npy, .csv or .joblib only")
    part = path.with_name(path.name + ".tmp")
    try:
        writers[path.suffix](generation, tables[0], part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: cannot write: {error.strerror or error}") from error


def _export_npy(generation: Generation, table: str, path: Path) -> None:
    """Dense: (rows, width). Sparse: records of "key" and "value"."""
    spec = generation.tables[table]
    dense = spec.kind == "dense"
    record = np.dtype(spec.dtype if dense else [("key", "<u8"), ("value", spec.dtype, (spec.width,))])
    shape = (generation.rows(table), spec.width) if dense else (generation.rows(table),)
    header = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for keys, values in generation.values(table):
            rows = values
            if not dense:
                rows = np.empty(len(keys), record)
                rows["key"], rows["value"] = keys, values
            file.write(rows.data)


def _export_csv(generation: Generation, table: str, path: Path) -> None:
    """One line for each row: key, name (empty where the data have none), value or values."""
    width = generation.tables[table].width
    columns = ["value"] if width == 1 else [f"value_{i}" for i in range(width)]
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["key", "name", *columns])
        for keys, values in generation.values(table):
            names = generation.names(table, keys) or [""] * len(keys)
            lines.writerows([key, name, *row] for key, name, row in zip(keys, names, values, strict=True))


def _export_joblib(generation: Generation, table: str, path: Path) -> None:
    """A fitted estimator of scikit-learn, which needs nothing of mpips."""
    try:
        import joblib

        model = _model(generation, table)
    except ImportError as error:
        raise CheckpointError(
            f"a model for scikit-learn takes scikit-learn: pip install 'mpips[sklearn]' ({error})"
        ) from None
    joblib.dump(model, path, compress=3)


def _model(generation: Generation, table: str) -> Any:
    """A logistic regression whose columns are the keys; where these are features with names, rows of texts by column
    go in, and the same features are made of them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    fields = generation.fields(table)
    _check(generation, table, named=fields is not None)
    weights = _weights(generation, table)
    model = LogisticRegression(fit_intercept=False)
    model.coef_, model.intercept_ = weights[np.newaxis], np.zeros(1)
    model.classes_, model.n_features_in_ = np.array([0, 1]), weights.size
    return model if fields is None else make_pipeline(*_features(generation, table, fields), model)


def _check(generation: Generation, table: str, named: bool) -> None:
    """See whether someone without mpips could make the model's columns."""
    spec = generation.tables[table]
    where = f'{generation.path}: table "{table}"'
    if spec.width > 1:
        raise CheckpointError(f"{where} has {spec.width} values for each key: a linear model has one")
    data = tomllib.loads(generation.job).get("data", {})
    kind = data.get("format") if data.get("format") != "libsvm" else None
    if kind is not None and not named:
        raise CheckpointError(
            f"{where}: its features have no names: only mpips can make such of rows in {kind} format; train with "
            'data.features.keys = "dictionary", or export to .npy or .csv'
        )
    if kind == "criteo":
        raise CheckpointError(f"{where}: scikit-learn can't put the integers of the criteo format into their buckets")


def _weights(generation: Generation, table: str) -> NDArray[Any]:
    """The weight of each column, (columns,); 0 where a sparse table has no such key."""
    spec = generation.tables[table]
    columns = spec.rows
    if spec.kind == "sparse":
        columns = 1 + max((int(keys.max()) for keys, _ in generation.values(table) if keys.size), default=0)
    if columns > COLUMNS:
        raise CheckpointError(
            f'{generation.path}: table "{table}" has the key {columns - 1}: a model for scikit-learn has a weight for '
            f"each key from 0 up, at most {COLUMNS:,}; export to .npy or .csv"
        )
    weights = np.zeros(columns, spec.dtype)
    for keys, values in generation.values(table):
        weights[keys.astype(np.int64)] = values[:, 0]
    return weights


def _features(generation: Generation, table: str, fields: list[tuple[str, int, int]]) -> list[Any]:
    """What makes the columns of rows, each a dictionary of texts by the columns of the data file.

    All of it is made of what scikit-learn, NumPy and Python's own library have, as only that can be unpickled without
    mpips. The cells of a cross are joined with the sign before each, which tells "1×11" from "11×1".
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

    columns = list(dict.fromkeys(column for field, _, _ in fields for column in field.split(CROSS)))
    crossed = [
        FunctionTransformer(partial(np.add, CROSS)),
        FunctionTransformer(np.add.reduce, kw_args={"axis": 1, "keepdims": True}),
    ]
    encoders = []
    for field, lo, hi in fields:
        names = generation.names(table, np.arange(lo, hi)) or []
        cells = np.array([name[len(field) + 1 :] for name in names], object)
        places = [columns.index(column) for column in field.split(CROSS)]
        is_cross = len(places) > 1
        known = [CROSS + cells] if is_cross else [cells]
        one_hot = OneHotEncoder(categories=known, handle_unknown="ignore", dtype=np.float32)
        encoders.append((field, make_pipeline(*crossed, one_hot) if is_cross else one_hot, places))
    features = ColumnTransformer(encoders, sparse_threshold=1.0)
    wanted = columns if len(columns) > 1 else 2 * columns  # of several names itemgetter makes a tuple
    features.fit(np.full((1, len(wanted)), "", object))
    return [
        FunctionTransformer(partial(map, itemgetter(*wanted))),
        FunctionTransformer(list),
        FunctionTransformer(np.array, kw_args={"dtype": str}),
        FunctionTransformer(np.asarray, kw_args={"dtype": object}),
        features,
    ]
