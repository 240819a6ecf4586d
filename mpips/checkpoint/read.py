"""Reading a generation, whole or in part, whatever the number of servers that wrote it."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from mpips.checkpoint import layout
from mpips.checkpoint.layout import CheckpointError
from mpips.table import TableSpec

Array = NDArray[Any]

BLOCK_BYTES = 4 << 20
OPEN_FILES = 64


class Generation:
    """One complete checkpoint.

    The master is read when this is made; server files are opened as they are needed, each checked to be the
    one that the master knows. Everything read from them is under a checksum.

    Parameters
    ----------
    path : the master file.

    Attributes
    ----------
    number : the generation's number.
    tables : what each table is, by name.
    clocks : by table and worker rank, the time of the last push that every server had applied.
    progress : what the scheduler stored.
    job : the job file's text.
    time : when it was completed, ISO 8601 in UTC.
    mpips : the version that wrote it.

    Raises
    ------
    CheckpointError : from any method: a file is missing, truncated, damaged, foreign or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: OrderedDict[int, h5py.File] = OrderedDict()
        self._index: dict[str, Array] = {}
        self.tables: dict[str, TableSpec] = {}
        self.clocks: dict[str, dict[int, int]] = {}
        with layout.open_file(path, layout.MASTER_FORMAT) as file, layout.reading(path):
            self.number = int(file.attrs["generation"])
            self.mpips = layout.get_text(file.attrs, "mpips")
            self.time = layout.get_text(file.attrs, "time")
            self.job = layout.get_text(file.attrs, "job")
            self.progress: dict[str, Any] = msgspec.json.decode(layout.get_text(file.attrs, "progress"))
            self._servers = {int(s["rank"]): (int(s["bytes"]), s["id"].decode()) for s in file["servers"][:]}
            for name in file["tables"]:
                group = file["tables"][name]
                self.tables[name] = _table(name, group.attrs)
                times = layout.get_text(group.attrs, "clocks")
                self.clocks[name] = msgspec.json.decode(times, type=dict[int, int])
                self._index[name] = group["index"][:]

    def rows(self, table: str) -> int:
        """Rows of a dense table, keys of a sparse one."""
        return int(self._index[table]["rows"].sum())

    def dense(self, table: str, lo: int, hi: int, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
        """Read rows of a dense table.

        Parameters
        ----------
        lo, hi : the rows ``[lo, hi)``.
        out : C-contiguous arrays to read into, of the shapes below; new ones by default.

        Returns
        -------
        values : (hi - lo, width) of the table's dtype.
        state : (hi - lo, width, slots) of the table's dtype.
        """
        values, state = out or (self._empty(table, "values", hi - lo), self._empty(table, "state", hi - lo))
        self._read_range(table, lo, "values", values)
        self._read_range(table, lo, "state", state)
        return values, state

    def sparse(self, table: str, shards: Sequence[int] | None = None) -> Iterator[tuple[Array, Array, Array]]:
        """Read a sparse table block by block, each of a few MB.

        Parameters
        ----------
        shards : the shards wanted, as numbered when the generation was written; by default all.

        Yields
        ------
        keys : (n,) uint64.
        values : (n, width) of the table's dtype.
        state : (n, width, slots) of the table's dtype.
        """
        index = self._index[table]
        if shards is not None:
            index = index[np.isin(index["shard"], shards)]
        for rank, lo, hi in self._blocks(table, index, with_state=True):
            yield (
                self._read(table, rank, "keys", lo, self._empty(table, "keys", hi - lo)),
                self._read(table, rank, "values", lo, self._empty(table, "values", hi - lo)),
                self._read(table, rank, "state", lo, self._empty(table, "state", hi - lo)),
            )

    def values(self, table: str) -> Iterator[tuple[Array, Array]]:
        """Read the values of any table block by block, each of a few MB.

        Yields
        ------
        keys : (n,) uint64; rows in their order for a dense table.
        values : (n, width) of the table's dtype.
        """
        row = 0
        for rank, lo, hi in self._blocks(table, self._index[table], with_state=False):
            values = self._read(table, rank, "values", lo, self._empty(table, "values", hi - lo))
            if self.tables[table].kind == "dense":
                yield np.arange(row, row + hi - lo, dtype=np.uint64), values
            else:
                yield self._read(table, rank, "keys", lo, self._empty(table, "keys", hi - lo)), values
            row += hi - lo

    def names(self, table: str, rows: Array) -> list[str] | None:
        """Names of rows of a table, such as "carrier=UA"; None where the data have no names for it."""
        with layout.open_file(self.path, layout.MASTER_FORMAT) as file:
            try:  # names are a courtesy: without them there is no error
                names = file["names"]
                if self.tables[table].kind != "dense" or names.shape != (self.rows(table),):
                    return None
                wanted, place = np.unique(np.asarray(rows, np.int64), return_inverse=True)
                lo, hi = (int(wanted[0]), int(wanted[-1]) + 1) if len(wanted) else (0, 0)
                found = names.asstr()[slice(lo, hi) if hi - lo == len(wanted) else wanted]
            except (KeyError, OSError, RuntimeError, TypeError, ValueError, AttributeError):
                return None
            return [str(found[i]) for i in place]

    def verify(self, deep: bool = False) -> None:
        """Check that every server file is there, whole and of this generation; `deep` reads all data too.

        Raises
        ------
        CheckpointError : the first file that is not, and what is wrong with it.
        """
        for rank in self._servers:
            self._server(rank)
        for name, table in self.tables.items() if deep else ():
            fields = ["values"] + ["state"] * (table.slots > 0) + ["keys"] * (table.kind == "sparse")
            for rank, lo, hi in self._blocks(name, self._index[name], with_state=True):
                for field in fields:
                    self._read(name, rank, field, lo, self._empty(name, field, hi - lo))

    def close(self) -> None:
        """Close the server files."""
        while self._files:
            self._files.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _server(self, rank: int) -> h5py.File:
        if rank in self._files:
            self._files.move_to_end(rank)
            return self._files[rank]
        path = self._server_path(rank)
        size, identity = self._servers[rank]
        with layout.reading(path):
            found = path.stat().st_size
        if found < size:
            raise CheckpointError(f"{path}: truncated: {found} of its {size} bytes are left")
        file = layout.open_file(path, layout.SERVER_FORMAT)
        with layout.reading(path):
            if found != size or layout.get_text(file.attrs, "id") != identity:
                file.close()
                raise CheckpointError(f"{path}: not the file that was written for {self.path.name}")
        if len(self._files) == OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        self._files[rank] = file
        return file

    def _server_path(self, rank: int) -> Path:
        return layout.server_path(self.path.parent, self.number, rank)

    def _read_range(self, table: str, lo: int, field: str, out: Array) -> None:
        index = self._index[table]
        ends = np.cumsum(index["rows"])
        hi = lo + len(out)
        if lo < 0 or hi > self.rows(table):
            raise IndexError(f'table "{table}" has rows 0 to {self.rows(table) - 1}, not [{lo}, {hi})')
        for i in range(int(np.searchsorted(ends, lo, side="right")), len(index)):
            first = int(ends[i] - index["rows"][i])
            if first >= hi:
                break
            a, b = max(lo, first), min(hi, int(ends[i]))
            offset = int(index["offset"][i]) + a - first
            self._read(table, int(index["rank"][i]), field, offset, out[a - lo : b - lo])

    def _read(self, table: str, rank: int, field: str, lo: int, out: Array) -> Array:
        """Fill `out` with rows of a server file, from row `lo` there."""
        if out.size:
            file = self._server(rank)
            with layout.reading(self._server_path(rank)):
                file["tables"][table][field].read_direct(out, np.s_[lo : lo + len(out)])
        return out

    def _empty(self, table: str, field: str, rows: int) -> Array:
        spec = self.tables[table]
        if field == "keys":
            return np.empty(rows, np.uint64)
        row = (spec.width,) if field == "values" else (spec.width, spec.slots)
        return np.empty((rows, *row), spec.dtype)

    def _blocks(self, table: str, index: Array, with_state: bool) -> Iterator[tuple[int, int, int]]:
        """Ranges of rows in server files, (rank, lo, hi), in the order of the index, neighbours joined."""
        spec = self.tables[table]
        limit = max(1, BLOCK_BYTES // (8 + spec.row_bytes * (1 + spec.slots * with_state)))
        limit = 1 << (limit.bit_length() - 1)
        rank, lo, hi = -1, 0, 0
        for entry in index:
            if int(entry["rank"]) != rank or int(entry["offset"]) != hi:
                yield from _cut(rank, lo, hi, limit)
                rank, lo = int(entry["rank"]), int(entry["offset"])
            hi = int(entry["offset"]) + int(entry["rows"])
        yield from _cut(rank, lo, hi, limit)


def _cut(rank: int, lo: int, hi: int, limit: int) -> Iterator[tuple[int, int, int]]:
    for start in range(lo, hi, limit):
        yield rank, start, min(hi, start + limit)


def _table(name: str, attributes: h5py.AttributeManager) -> TableSpec:
    fields: dict[str, Any] = {field: layout.get_text(attributes, field) for field in ("kind", "dtype")}
    fields |= {field: int(attributes[field]) for field in ("rows", "width", "slots")}
    rule = msgspec.json.decode(layout.get_text(attributes, "rule"))
    return msgspec.convert({"name": name, "rule": rule, **fields}, TableSpec)
