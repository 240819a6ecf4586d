"""The csv format (RFC 4180): a header names the columns, cells may be quoted."""

import csv
import difflib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.delimited import Columns, Dialect
from mpips.dataserver.errors import DataError
from mpips.dataserver.spec import DataSpec
from mpips.kernels.delimited import count_records

DIALECT = Dialect(ord(","), ord('"'))


def count_rows(text: NDArray[np.uint8], limit: int) -> tuple[int, int]:
    """Number of rows of a text, at most `limit`, and where the last of them ends."""
    rows, end = count_records(text, *DIALECT, limit)
    return rows, end


def columns_of(spec: DataSpec, path: Path, header: str) -> Columns:
    """What the header of a file says about its columns.

    Raises
    ------
    DataError
        A column that the job file names is not there, or twice.
    """
    names = next(row for row in csv.reader(io.StringIO(header, newline="")) if row)
    label, operator, threshold = spec.label_rule
    wanted = [label] + [name for field in spec.features.columns for name in field] if spec.features else [label]
    for name in wanted:
        if names.count(name) > 1:
            raise DataError(f'{path}: the header has {names.count(name)} columns "{name}"')
        if name not in names:
            close = difflib.get_close_matches(name, names, 1, 0.5)
            hint = f'did you mean "{close[0]}"?' if close else f"it has: {', '.join(names)[:200]}"
            raise DataError(f'{path}: the header has no column "{name}"; {hint}')
    return Columns(names, names.index(label), operator, threshold, frozenset())
