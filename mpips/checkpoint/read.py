"""Reading a generation, whole or in part, whatever the number of servers that wrote it."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

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
SLACK = 1 << 20  # bytes that are not worth writing anything again


class File(NamedTuple):
    """A server's file that belongs to a generation: the one that it was written for, the server's rank, its size in
    bytes, and its identity.
    """

    generation: int
    rank: int
    bytes: int
    id: str


def files_of(master: h5py.File) -> list[File]:
    """The server files that an open master needs."""
    records = master["files"][:].tolist()
    return [File(generation, rank, size, identity.decode()) for generation, rank, size, identity in records]


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
    about : what else its program says of the model.
    time : when it was completed, ISO 8601 in UTC.
    mpips : the version that wrote it.
    files : the server files, of this generation and of older ones.
    index : by table, where each shard is: (n,) of `layout.MASTER_INDEX`, with `file` a number in `files`.

    Raises
    ------
    CheckpointError : from any method: a file is missing, truncated, damaged, foreign or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: OrderedDict[int, h5py.File] = OrderedDict()
        self.index: dict[str, Array] = {}
        self.tables: dict[str, TableSpec] = {}
        self.clocks: dict[str, dict[int, int]] = {}
        with layout.open_file(path, layout.MASTER_FORMAT) as file, layout.reading(path):
            self.number = int(file.attrs["generation"])
            self.mpips = layout.get_text(file.attrs, "mpips")
            self.time = layout.get_text(file.attrs, "time")
            self.job = layout.get_text(file.attrs, "job")
            about = layout.get_text(file.attrs, "about") if "about" in file.attrs else "{}"
            self.about: dict[str, Any] = msgspec.json.decode(about)
            self.progress: dict[str, Any] = msgspec.json.decode(layout.get_text(file.attrs, "progress"))
            self.files = files_of(file)
            for name in file["tables"]:
                group = file["tables"][name]
                self.tables[name] = _table(name, group.attrs)
                times = layout.get_text(group.attrs, "clocks")
                self.clocks[name] = msgspec.json.decode(times, type=dict[int, int])
                self.index[name] = group["index"][:]

    def rows(self, table: str) -> int:
        """Rows of a dense table, keys of a sparse one."""
        return int(self.index[table]["rows"].sum())

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
        index = self.index[table]
        if shards is not None:
            index = index[np.isin(index["shard"], shards)]
        for number, lo, hi in self._blocks(table, index, with_state=True):
            yield (
                self._read(table, number, "keys", lo, self._empty(table, "keys", hi - lo)),
                self._read(table, number, "values", lo, self._empty(table, "values", hi - lo)),
                self._read(table, number, "state", lo, self._empty(table, "state", hi - lo)),
            )

    def values(self, table: str) -> Iterator[tuple[Array, Array]]:
        """Read the values of any table block by block, each of a few MB.

        Yields
        ------
        keys : (n,) uint64; rows in their order for a dense table.
        values : (n, width) of the table's dtype.
        """
        row = 0
        for number, lo, hi in self._blocks(table, self.index[table], with_state=False):
            values = self._read(table, number, "values", lo, self._empty(table, "values", hi - lo))
            if self.tables[table].kind == "dense":
                yield np.arange(row, row + hi - lo, dtype=np.uint64), values
            else:
                yield self._read(table, number, "keys", lo, self._empty(table, "keys", hi - lo)), values
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

    def fields(self, table: str) -> list[tuple[str, int, int]] | None:
        """The fields that the rows of a table are features of, such as "carrier×flight", each with its rows ``[lo,
        hi)``; None where the data have no names for it.
        """
        if self.names(table, np.empty(0)) is None:
            return None
        with layout.open_file(self.path, layout.MASTER_FORMAT) as file:
            try:
                names = file["names"].file
                fields = [str(field) for field in names.attrs["fields"]]
                starts = np.searchsorted(names["keys"][:] >> np.uint64(56), np.arange(len(fields) + 1)).tolist()
            except (KeyError, OSError, RuntimeError, TypeError, ValueError):
                return None
        return list(zip(fields, starts[:-1], starts[1:], strict=True))

    def verify(self, deep: bool = False) -> None:
        """Check that every server file is there, whole and of this generation; `deep` reads all data too.

        Raises
        ------
        CheckpointError : the first file that is not, and what is wrong with it.
        """
        for number in range(len(self.files)):
            self._file(number)
        for name, table in self.tables.items() if deep else ():
            fields = ["values"] + ["state"] * (table.slots > 0) + ["keys"] * (table.kind == "sparse")
            for number, lo, hi in self._blocks(name, self.index[name], with_state=True):
                for field in fields:
                    self._read(name, number, field, lo, self._empty(name, field, hi - lo))

    def worn(self) -> int:
        """The generation before which shards should be written again when they are next, so that the files take no more
        than about twice the room of what is needed of them; 0 while they don't.
        """
        needed, whole = np.zeros(len(self.files)), np.zeros(len(self.files))
        for name, index in self.index.items():
            row = self.tables[name].row_bytes * (1 + self.tables[name].slots) + 8 * (self.tables[name].kind == "sparse")
            needed += np.bincount(index["file"], index["rows"] * row, len(self.files))
        whole += [file.bytes for file in self.files]
        first, excess = 0, whole.sum() - 2 * needed.sum() - SLACK
        for generation in sorted({file.generation for file in self.files}):
            if excess <= 0:
                break
            its = [file.generation == generation for file in self.files]
            excess -= whole[its].sum() - needed[its].sum()
            first = generation + 1
        return first

    def close(self) -> None:
        """Close the server files."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _file(self, number: int) -> h5py.File:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        path = self._path(number)
        _, _, size, identity = self.files[number]
        with layout.reading(path):
            found = path.stat().st_size
        if found < size:
            raise CheckpointError(f"{path}: truncated: {found} of its {size} bytes are left")
        file = layout.open_file(path, layout.SERVER_FORMAT)
        with layout.reading(path):
            if found != size or layout.get_text(file.attrs, "id") != identity:
                file.close()
                raise CheckpointError(f"{path}: not the file that was written for {self.path.name}")
        if len(self._open) == OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        self._open[number] = file
        return file

    def _path(self, number: int) -> Path:
        file = self.files[number]
        return layout.server_path(self.path.parent, file.generation, file.rank)

    def _read_range(self, table: str, lo: int, field: str, out: Array) -> None:
        index = self.index[table]
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
            self._read(table, int(index["file"][i]), field, offset, out[a - lo : b - lo])

    def _read(self, table: str, number: int, field: str, lo: int, out: Array) -> Array:
        """Fill `out` with rows of a server file, from row `lo` there."""
        if out.size:
            file = self._file(number)
            with layout.reading(self._path(number)):
                file["tables"][table][field].read_direct(out, np.s_[lo : lo + len(out)])
        return out

    def _empty(self, table: str, field: str, rows: int) -> Array:
        spec = self.tables[table]
        if field == "keys":
            return np.empty(rows, np.uint64)
        row = (spec.width,) if field == "values" else (spec.width, spec.slots)
        return np.empty((rows, *row), spec.dtype)

    def _blocks(self, table: str, index: Array, with_state: bool) -> Iterator[tuple[int, int, int]]:
        """Ranges of rows in server files, (file, lo, hi), in the order of the index, neighbours joined."""
        spec = self.tables[table]
        limit = max(1, BLOCK_BYTES // (8 + spec.row_bytes * (1 + spec.slots * with_state)))
        limit = 1 << (limit.bit_length() - 1)
        number, lo, hi = -1, 0, 0
        for entry in index:
            if int(entry["file"]) != number or int(entry["offset"]) != hi:
                yield from _cut(number, lo, hi, limit)
                number, lo = int(entry["file"]), int(entry["offset"])
            hi = int(entry["offset"]) + int(entry["rows"])
        yield from _cut(number, lo, hi, limit)


def _cut(number: int, lo: int, hi: int, limit: int) -> Iterator[tuple[int, int, int]]:
    for start in range(lo, hi, limit):
        yield number, start, min(hi, start + limit)


def _table(name: str, attributes: h5py.AttributeManager) -> TableSpec:
    fields: dict[str, Any] = {field: layout.get_text(attributes, field) for field in ("kind", "dtype")}
    fields |= {field: int(attributes[field]) for field in ("rows", "width", "slots")}
    rule = msgspec.json.decode(layout.get_text(attributes, "rule"))
    return msgspec.convert({"name": name, "rule": rule, **fields}, TableSpec)
