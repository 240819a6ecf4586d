"""Completing a generation: one master file that shows every table whole, over all server files."""

import datetime
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from mpips.checkpoint import layout
from mpips.checkpoint.layout import CheckpointError
from mpips.table import TableSpec


def write_master(
    run: Path,
    generation: int,
    ranks: Sequence[int],
    tables: Sequence[TableSpec],
    job: str,
    progress: Mapping[str, Any],
    names: Path | None = None,
) -> Path:
    """Complete a generation whose server files are all there.

    Parameters
    ----------
    run, generation : the run folder and the generation's number.
    ranks : the servers that wrote a file.
    tables : every table of the job.
    job : the job file's text.
    progress : what the scheduler needs to go on; anything that JSON can hold.
    names : the HDF5 file whose dataset "names" holds a name for each row, when the data have names.

    Returns
    -------
    Path
        The master file.

    Raises
    ------
    CheckpointError : a server file is missing or damaged, a shard is missing or written twice, or the master
        cannot be written.
    """
    path = layout.master_path(run, generation)
    servers = [_Server(run, generation, rank) for rank in ranks]
    try:
        with layout.writing(path), layout.create(path) as file:
            layout.describe_file(file, layout.MASTER_FORMAT, generation)
            now = datetime.datetime.now(datetime.UTC)
            layout.put_text(file.attrs, "time", now.isoformat(timespec="seconds"))
            layout.put_text(file.attrs, "job", job)
            layout.put_text(file.attrs, "progress", layout.to_json(progress))
            records = [(s.rank, s.path.stat().st_size, s.id) for s in servers]
            layout.put_records(file, "servers", np.array(records, layout.SERVERS))
            for table in tables:
                _write_table(file.create_group(f"tables/{table.name}"), table, servers, path)
            if names is not None:
                file["names"] = h5py.ExternalLink(os.path.relpath(names, run), "names")
        with layout.writing(path):
            layout.publish(path)
    except CheckpointError:
        with suppress(OSError):
            layout.temporary(path).unlink()
        raise
    return path


class _Server:
    """What the master needs to know of a server's file."""

    def __init__(self, run: Path, generation: int, rank: int) -> None:
        self.rank = rank
        self.path = layout.server_path(run, generation, rank)
        self.source = str(self.path.relative_to(run)).encode()
        self.index: dict[str, NDArray[Any]] = {}
        self.clocks: dict[str, dict[int, int]] = {}
        with layout.open_file(self.path, layout.SERVER_FORMAT) as file, layout.reading(self.path):
            self.id = layout.get_text(file.attrs, "id")
            for name in file["tables"]:
                group = file["tables"][name]
                self.index[name] = group["index"][:]
                if "clocks" in group.attrs:
                    times = layout.get_text(group.attrs, "clocks")
                    self.clocks[name] = msgspec.json.decode(times, type=dict[int, int])


def _write_table(group: h5py.Group, table: TableSpec, servers: Sequence[_Server], master: Path) -> None:
    holders = [server for server in servers if table.name in server.index]
    index = np.concatenate([np.empty(0, layout.MASTER_INDEX)] + [_with_rank(s, table.name) for s in holders])
    _check_shards(index, table, master)
    clocks: dict[int, int] = {}
    for server in holders:
        for worker, time in server.clocks.get(table.name, {}).items():
            clocks[worker] = min(time, clocks.get(worker, time))
    for name in ("kind", "dtype"):
        layout.put_text(group.attrs, name, getattr(table, name))
    for name in ("rows", "width", "slots", "shards"):
        group.attrs[name] = getattr(table, name)
    layout.put_text(group.attrs, "rule", layout.to_json(table.rule))
    layout.put_text(group.attrs, "clocks", layout.to_json(clocks))
    layout.put_records(group, "index", index)
    dtype = f"<f{table.itemsize}"
    if table.kind == "sparse":
        _show_whole(group, "keys", (), "<u8", index, holders)
    _show_whole(group, "values", (table.width,), dtype, index, holders)
    if table.slots:
        _show_whole(group, "state", (table.width, table.slots), dtype, index, holders)


def _with_rank(server: _Server, table: str) -> NDArray[Any]:
    index = np.empty(len(server.index[table]), layout.MASTER_INDEX)
    for name in layout.SERVER_INDEX.names or ():
        index[name] = server.index[table][name]
    index["rank"] = server.rank
    return index


def _check_shards(index: NDArray[Any], table: TableSpec, master: Path) -> None:
    """Every shard is there, and only one server wrote it."""
    writers = np.unique(np.stack([index["shard"], index["rank"]]), axis=1)[0]
    count = np.bincount(writers, minlength=table.shards)
    for shard in np.flatnonzero(count != 1)[:1]:
        raise CheckpointError(
            f'{master}: not complete: table "{table.name}": shard {shard} is in {count[shard]} server files'
        )
    if table.kind == "dense":
        index.sort(order="shard")


def _show_whole(
    group: h5py.Group,
    name: str,
    row: tuple[int, ...],
    dtype: str,
    index: NDArray[Any],
    servers: Sequence[_Server],
) -> None:
    """A virtual dataset over the servers' files: one mapping for each, of all its rows to their places."""
    starts = np.cumsum(index["rows"]) - index["rows"]
    total = int(index["rows"].sum())
    start = (0,) * len(row)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_fill_value(np.array(0 if dtype == "<u8" else np.nan, dtype))  # a lost file shows as NaN
    for server in servers:
        mine = np.flatnonzero((index["rank"] == server.rank) & (index["rows"] > 0))
        if not mine.size:
            continue
        target = h5py.h5s.create_simple((total, *row))
        target.select_none()
        for run in np.split(mine, np.flatnonzero(np.diff(mine) != 1) + 1):
            rows = int(index["rows"][run].sum())
            first = (int(starts[run[0]]), *start)
            target.select_hyperslab(first, (1,) * len(first), block=(rows, *row), op=h5py.h5s.SELECT_OR)
        source = h5py.h5s.create_simple((int(index["rows"][mine].sum()), *row))
        properties.set_virtual(target, server.source, f"{group.name}/{name}".encode(), source)
    space = h5py.h5s.create_simple((total, *row))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, dcpl=properties)
