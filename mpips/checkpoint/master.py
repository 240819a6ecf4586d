"""Completing a generation: one master file that shows every table whole, over the newest server files of its shards."""

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
from mpips.checkpoint.read import Generation
from mpips.table import TableSpec


def write_master(
    run: Path,
    generation: int,
    ranks: Sequence[int],
    tables: Sequence[TableSpec],
    job: str,
    progress: Mapping[str, Any],
    names: Path | None = None,
    base: int | None = None,
    about: Mapping[str, Any] | None = None,
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
    base : the complete generation since which the servers have written what has changed; None: they wrote all. It
        is not looked at when they have written all anyway.
    about : what else a reader needs to know; anything that JSON can hold.

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
    parts = [_Part(run, generation, rank) for rank in ranks]
    index = {table.name: _written(table, parts) for table in tables}
    if base is not None and any(np.unique(index[table.name]["shard"]).size < table.shards for table in tables):
        with Generation(layout.master_path(run, base)) as old:
            old.verify()
            for table in tables:
                index[table.name], parts = _joined(index[table.name], table, old, parts)
    for table in tables:
        _check_shards(index[table.name], table, path)
    needed = sorted({int(i) for entries in index.values() for i in entries["file"]}, key=lambda i: parts[i].place)
    places = np.zeros(len(parts), np.int64)
    places[needed] = np.arange(len(needed))
    clocks = [part.clocks for part in parts if part.generation == generation]
    parts = [parts[i] for i in needed]
    try:
        with layout.writing(path), layout.create(path) as file:
            layout.describe_file(file, layout.MASTER_FORMAT, generation)
            now = datetime.datetime.now(datetime.UTC)
            layout.put_text(file.attrs, "time", now.isoformat(timespec="seconds"))
            layout.put_text(file.attrs, "job", job)
            layout.put_text(file.attrs, "progress", layout.to_json(progress))
            layout.put_text(file.attrs, "about", layout.to_json(about or {}))
            records = [(part.generation, part.rank, part.bytes, part.id) for part in parts]
            layout.put_records(file, "files", np.array(records, layout.FILES))
            for table in tables:
                entries = index[table.name]
                entries["file"] = places[entries["file"]]
                entries.sort(order=["shard"] if table.kind == "dense" else ["file", "offset"])
                _write_table(file.create_group(f"tables/{table.name}"), table, entries, parts, clocks)
            if names is not None:
                file["names"] = h5py.ExternalLink(os.path.relpath(names, run), "names")
        with layout.writing(path):
            layout.publish(path)
    except CheckpointError:
        with suppress(OSError):
            layout.temporary(path).unlink()
        raise
    return path


class _Part:
    """What the master needs to know of a server's file."""

    def __init__(self, run: Path, generation: int, rank: int) -> None:
        self.generation, self.rank = generation, rank
        self.place = generation, rank
        path = layout.server_path(run, generation, rank)
        self.source = str(path.relative_to(run)).encode()
        self.index: dict[str, NDArray[Any]] = {}
        self.clocks: dict[str, dict[int, int]] = {}
        with layout.open_file(path, layout.SERVER_FORMAT) as file, layout.reading(path):
            self.bytes = path.stat().st_size
            self.id = layout.get_text(file.attrs, "id")
            for name in file["tables"]:
                self.index[name] = file["tables"][name]["index"][:]
            if "clocks" in file.attrs:
                times = layout.get_text(file.attrs, "clocks")
                self.clocks = msgspec.json.decode(times, type=dict[str, dict[int, int]])

    def rows(self, table: str) -> int:
        """Rows that the file has of a table."""
        return int(self.index[table]["rows"].sum())


def _written(table: TableSpec, parts: Sequence[_Part]) -> NDArray[Any]:
    """What the files of this generation have of a table; `file` is the number of a part."""
    found = [np.empty(0, layout.MASTER_INDEX)]
    for number, part in enumerate(parts):
        if table.name in part.index:
            index = np.empty(len(part.index[table.name]), layout.MASTER_INDEX)
            for name in layout.SERVER_INDEX.names or ():
                index[name] = part.index[table.name][name]
            index["file"] = number
            found.append(index)
    return np.concatenate(found)


def _joined(
    written: NDArray[Any], table: TableSpec, old: Generation, parts: list[_Part]
) -> tuple[NDArray[Any], list[_Part]]:
    """The same with those shards of an older generation that have not been written since, and with their files."""
    if table.name not in old.tables or old.tables[table.name].shards != table.shards:
        return written, parts
    rest = old.index[table.name]
    rest = rest[~np.isin(rest["shard"], written["shard"])]
    places = [(file.generation, file.rank) for file in old.files]
    known = {part.place: number for number, part in enumerate(parts)}
    for number in np.unique(rest["file"]).tolist():
        if places[number] not in known:
            known[places[number]] = len(parts)
            parts = [*parts, _Part(old.path.parent, *places[number])]
    rest["file"] = [known[places[number]] for number in rest["file"].tolist()]
    return np.concatenate([written, rest]), parts


def _write_table(
    group: h5py.Group,
    table: TableSpec,
    index: NDArray[Any],
    parts: Sequence[_Part],
    clocks: Sequence[Mapping[str, Mapping[int, int]]],
) -> None:
    last: dict[int, int] = {}
    for times in clocks:
        for worker, time in times.get(table.name, {}).items():
            last[worker] = min(time, last.get(worker, time))
    for name in ("kind", "dtype"):
        layout.put_text(group.attrs, name, getattr(table, name))
    for name in ("rows", "width", "slots", "shards"):
        group.attrs[name] = getattr(table, name)
    layout.put_text(group.attrs, "rule", layout.to_json(table.rule))
    layout.put_text(group.attrs, "clocks", layout.to_json(last))
    layout.put_records(group, "index", index)
    dtype = f"<f{table.itemsize}"
    if table.kind == "sparse":
        _show_whole(group, "keys", (), "<u8", index, parts)
    _show_whole(group, "values", (table.width,), dtype, index, parts)
    if table.slots:
        _show_whole(group, "state", (table.width, table.slots), dtype, index, parts)


def _check_shards(index: NDArray[Any], table: TableSpec, master: Path) -> None:
    """Every shard is there, and only one server wrote it."""
    writers = np.unique(np.stack([index["shard"], index["file"]]), axis=1)[0]
    count = np.bincount(writers, minlength=table.shards)
    for shard in np.flatnonzero(count != 1)[:1]:
        raise CheckpointError(
            f'{master}: not complete: table "{table.name}": shard {shard} is in {count[shard]} server files'
        )


def _show_whole(
    group: h5py.Group,
    name: str,
    row: tuple[int, ...],
    dtype: str,
    index: NDArray[Any],
    parts: Sequence[_Part],
) -> None:
    """A virtual dataset over the servers' files: one mapping for each, of those of its rows that are the newest to
    their places.
    """
    starts = np.cumsum(index["rows"]) - index["rows"]
    total = int(index["rows"].sum())
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_fill_value(np.array(0 if dtype == "<u8" else np.nan, dtype))  # a lost file shows as NaN
    for number, part in enumerate(parts):
        mine = (index["file"] == number) & (index["rows"] > 0)
        if not mine.any():
            continue
        rows = index["rows"][mine]
        target = _select((total, *row), starts[mine], rows)
        source = _select((part.rows(group.name.rpartition("/")[2]), *row), index["offset"][mine], rows)
        properties.set_virtual(target, part.source, f"{group.name}/{name}".encode(), source)
    space = h5py.h5s.create_simple((total, *row))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, dcpl=properties)


def _select(shape: tuple[int, ...], firsts: NDArray[Any], rows: NDArray[Any]) -> h5py.h5s.SpaceID:
    """A dataspace with so many rows selected from each of the first ones on; neighbours go together."""
    space = h5py.h5s.create_simple(shape)
    if int(rows.sum()) == shape[0]:
        return space
    space.select_none()
    ends = firsts + rows
    begins = np.flatnonzero(np.concatenate(([True], firsts[1:] != ends[:-1])))
    for first, last in zip(begins, np.append(begins[1:], len(rows)) - 1, strict=True):
        start = (int(firsts[first]), *(0,) * (len(shape) - 1))
        block = (int(ends[last] - firsts[first]), *shape[1:])
        space.select_hyperslab(start, (1,) * len(shape), block=block, op=h5py.h5s.SELECT_OR)
    return space
