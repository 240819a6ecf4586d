"""Writing one server's part of a generation: shard by shard, so that the server serves in between."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpips.checkpoint import layout
from mpips.checkpoint.column import Column
from mpips.checkpoint.direct import start_sync
from mpips.checkpoint.layout import CheckpointError
from mpips.table import LEAST_SHARDS, MIN_SHARD_BYTES, SHARD_BYTES, TableSpec


class ServerFile:
    """One server's part of a generation: the shards that have changed since the one before.

    Every call of `dense` or `sparse` writes one shard and returns; after the last one `close` completes
    the file.

    Parameters
    ----------
    run : the run folder.
    generation : the generation's number.
    rank : this server's rank.
    compression : gzip's level, 1 to 9; 0: none.

    Raises
    ------
    CheckpointError : from any method, when the file cannot be written; nothing of it is left behind.
    """

    def __init__(self, run: Path, generation: int, rank: int, compression: int = 0) -> None:
        self.path = layout.server_path(run, generation, rank)
        self._compression = compression
        self._tables: dict[str, _ServerTable] = {}
        self._given_up = False
        with layout.writing(self.path):
            self._file = layout.create(self.path)
        with self._writing():
            layout.describe_file(self._file, layout.SERVER_FORMAT, generation)
            self._file.attrs["rank"] = rank
            layout.put_text(self._file.attrs, "id", uuid.uuid4().hex)

    def dense(self, table: TableSpec, shard: int, values: ArrayLike, state: ArrayLike) -> None:
        """Write a shard of a dense table; a table's shards come in ascending order.

        Parameters
        ----------
        values : (rows of the shard, width) of the table's dtype.
        state : (rows of the shard, width, slots) of the table's dtype.
        """
        lo, hi = table.shard_range(shard)
        with self._writing():
            written = self._table(table, shard)
            if written.index and written.index[-1][0] >= shard:
                last = written.index[-1][0]
                raise ValueError(f'table "{table.name}": shard {shard} comes after shard {last}')
            written.append(shard, None, *_rows(table, hi - lo, values, state))

    def sparse(
        self, table: TableSpec, shard: int, keys: NDArray[np.uint64], values: ArrayLike, state: ArrayLike
    ) -> None:
        """Write a shard of a sparse table, at once or in pieces; an empty shard is written too.

        Parameters
        ----------
        keys : (n,) uint64.
        values : (n, width) of the table's dtype.
        state : (n, width, slots) of the table's dtype.
        """
        with self._writing():
            self._table(table, shard).append(shard, keys, *_rows(table, len(keys), values, state))

    def clocks(self, clocks: Mapping[str, Mapping[int, int]]) -> None:
        """Record, by table and identity of a worker, the step of its last push that this server's shards contain."""
        with self._writing():
            layout.put_text(self._file.attrs, "clocks", layout.to_json(clocks))

    def start_sync(self) -> None:
        """Have the disk begin with what is written so far, while more is written."""
        with self._writing():
            start_sync(self._file.id.get_vfd_handle())

    def close(self) -> Path:
        """Complete the file, force it to the disk and give it its name; a server has this done beside its loop."""
        with self._writing():
            for table in self._tables.values():
                table.close()
            self._file.close()
            layout.publish(self.path)
        return self.path

    def abort(self) -> None:
        """Give the file up and leave nothing of it behind; whatever would be done with it raises CheckpointError."""
        self._given_up = True
        with suppress(OSError, RuntimeError):  # HDF5 complains on a full disk, and closes it
            self._file.close()
        with suppress(OSError):
            layout.temporary(self.path).unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._given_up:
            raise CheckpointError(f"{self.path}: given up")
        try:
            with layout.writing(self.path):
                yield
        except CheckpointError:
            self.abort()
            raise

    def _table(self, table: TableSpec, shard: int) -> "_ServerTable":
        if not 0 <= shard < table.shards:
            raise ValueError(f'table "{table.name}" has no shard {shard}: its {table.shards} shards start at 0')
        if table.name not in self._tables:
            self._tables[table.name] = _ServerTable(self._file, table, self._compression)
        return self._tables[table.name]


class _ServerTable:
    """The shards of one table in one server's file: back to back, with an index of where each stands."""

    def __init__(self, file: h5py.File, table: TableSpec, compression: int) -> None:
        self.group = file.create_group(f"tables/{table.name}")
        self.index: list[tuple[int, int, int]] = []
        chunk = _chunk_rows(table)
        dtype = f"<f{table.itemsize}"

        def column(name: str, row: tuple[int, ...], dtype: str) -> Column:
            return Column(self.group, name, row, dtype, chunk, compression)

        self._keys = column("keys", (), "<u8") if table.kind == "sparse" else None
        self._values = column("values", (table.width,), dtype)
        self._state = column("state", (table.width, table.slots), dtype) if table.slots else None

    def append(self, shard: int, keys: NDArray[Any] | None, values: NDArray[Any], state: NDArray[Any]) -> None:
        self.index.append((shard, self._values.rows, len(values)))
        if self._keys is not None and keys is not None:
            self._keys.append(keys)
        self._values.append(values)
        if self._state is not None:
            self._state.append(state)

    def close(self) -> None:
        for column in (self._keys, self._values, self._state):
            if column is not None:
                column.close()
        layout.put_records(self.group, "index", np.array(self.index, layout.SERVER_INDEX))


def _chunk_rows(table: TableSpec) -> int:
    """Dense: the rows of a shard. Sparse: about 1 MB of values, less for a small table."""
    if table.kind == "dense":
        return table.shard_rows
    expected = max(table.rows // LEAST_SHARDS, MIN_SHARD_BYTES // table.row_bytes)
    return 1 << (max(1, min(SHARD_BYTES // table.row_bytes, expected)).bit_length() - 1)


def _rows(table: TableSpec, rows: int, values: ArrayLike, state: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    dtype = f"<f{table.itemsize}"
    return (
        np.asarray(values, dtype).reshape(rows, table.width),
        np.asarray(state, dtype).reshape(rows, table.width, table.slots),
    )
