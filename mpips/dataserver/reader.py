"""What a reader of a format is, and how it tells what is wrong with a row."""

import json
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.errors import DataError
from mpips.dataserver.rows import Rows
from mpips.dataserver.text import Chunk
from mpips.kernels import parse

_WHAT = {
    parse.NOT_A_NUMBER: "{text} is not a finite number",
    parse.NOT_A_LABEL: 'the label {text} is none of 1, 0, -1; in csv a comparison helps, such as label = "delay > 15"',
    parse.NOT_A_PAIR: "{text} is not key:value, with a key from 0 to 2^64 - 1",
    parse.KEY_TOO_LARGE: "the key of {text} is above 2^64 - 1",
    parse.REPEATED_KEY: "a key is there twice",
    parse.COLUMN_COUNT: "{column} columns, where {columns} are expected",
    parse.UNCLOSED_QUOTE: "a quoted cell is never closed: {text}",
    parse.AFTER_QUOTE: "text after the closing quote of {text}",
    parse.NOT_AN_INTEGER: "{text} is not an integer",
}


class Reader(Protocol):
    """Reads the rows of one file."""

    def read(self, chunk: Chunk) -> tuple[Rows, int]:
        """The well-formed rows of a chunk, and the number of malformed ones that were left out."""
        ...


class Faults:
    """The malformed rows of one file: the first is an error, or all are counted and left out.

    Parameters
    ----------
    path : Path
        The file, as the error should name it.
    skip : bool
        Whether malformed rows are left out.
    columns : list of str
        The names of the columns; empty where a format has none.
    """

    def __init__(self, path: Path, skip: bool, columns: list[str]) -> None:
        self._path = path
        self._skip = skip
        self._columns = columns
        self.first = ""

    def count(self, chunk: Chunk, fault: NDArray[np.int64]) -> int:
        """How many rows a parsing kernel reported as malformed.

        Raises
        ------
        DataError
            There is one, and it is not to be skipped.
        """
        rows, reason, line, column, start, stop = fault.tolist()
        if rows and not self.first:
            text = json.dumps(
                chunk.text[start : min(stop, start + 40)].tobytes().decode(errors="replace"),
                ensure_ascii=False,
            )
            what = _WHAT[reason].format(text=text, column=column, columns=len(self._columns))
            where = f'column "{self._columns[column]}": ' if self._columns and reason != parse.COLUMN_COUNT else ""
            self.first = f"line {chunk.first_line + line}: {where}{what}"
            if not self._skip:
                raise DataError(f'{self._path}: {self.first} (data.malformed = "skip" leaves such rows out)')
        return int(rows)
