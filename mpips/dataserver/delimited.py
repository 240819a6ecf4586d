"""Delimited text to one-hot features: find the cells, hash the fields, collect their names."""

from typing import NamedTuple

import numpy as np

from mpips.dataserver.dictionary import DictionaryBuilder
from mpips.dataserver.reader import Faults
from mpips.dataserver.rows import Rows
from mpips.dataserver.spec import FeatureSpec, Hashed
from mpips.dataserver.text import Chunk
from mpips.kernels.delimited import split_cells
from mpips.kernels.features import hash_cells


class Dialect(NamedTuple):
    """How rows are written: the byte between cells, and the byte around a cell that holds one (-1: none)."""

    delimiter: int
    quote: int


class Columns(NamedTuple):
    """What is in the columns: their names, which is the label and what it means, which hold integers."""

    names: list[str]
    label: int
    operator: int
    threshold: float
    integers: frozenset[str]


class CellReader:
    """Reads rows of cells: every field of `features` gives a row one feature, of value 1.

    Parameters
    ----------
    dialect : Dialect
    columns : Columns
    features : FeatureSpec
        All its columns are among `columns`.
    dictionary : DictionaryBuilder, optional
        Where the names of features are collected.
    faults : Faults
    """

    def __init__(
        self,
        dialect: Dialect,
        columns: Columns,
        features: FeatureSpec,
        dictionary: DictionaryBuilder | None,
        faults: Faults,
    ) -> None:
        wanted = list(dict.fromkeys(name for field in features.columns for name in field))
        self._dialect = dialect
        self._columns = columns
        self._slot_of_column = np.full(len(columns.names), -1, np.int32)
        self._slot_of_column[[columns.names.index(name) for name in wanted]] = np.arange(len(wanted))
        self._integers = np.array([name in columns.integers for name in wanted])
        self._slots = np.array([wanted.index(name) for field in features.columns for name in field], np.int32)
        self._slot_ptr = np.cumsum([0] + [len(field) for field in features.columns]).astype(np.int32)
        self._bits = features.keys.hash_bits if isinstance(features.keys, Hashed) else 0
        self._dictionary = dictionary
        self._faults = faults

    def read(self, chunk: Chunk) -> tuple[Rows, int]:
        """The well-formed rows of a chunk, and the number of malformed ones that were left out."""
        labels = np.empty(chunk.rows, np.float32)
        numbers = np.empty(chunk.rows, np.int64)
        spans = np.empty((chunk.rows, self._integers.size, 2), np.int32)
        fault = np.zeros(6, np.int64)
        _, label, operator, threshold, _ = self._columns
        n = split_cells(
            chunk.text, *self._dialect, self._slot_of_column, self._integers, label, operator, threshold,
            spans, labels, numbers, fault,
        )  # fmt: skip
        malformed = self._faults.count(chunk, fault)
        fields = self._slot_ptr.size - 1
        keys = np.empty(n * fields, np.uint64)
        checks = np.empty(0 if self._dictionary is None else keys.size, np.uint64)
        cells = chunk.text, spans[:n], self._slots, self._slot_ptr
        hash_cells(*cells, self._bits, keys, checks)
        if self._dictionary is not None:
            self._dictionary.add(keys, checks, *cells)
        indptr = np.arange(0, keys.size + 1, fields)
        return Rows(labels[:n], numbers[:n] + chunk.first_row, indptr, keys, np.empty(0, np.float32)), malformed
