"""How two generations of a run differ: `mpips inspect RUN --against N`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from mpips.checkpoint import CheckpointError, Generation
from mpips.table import TableSpec

ROWS = 1 << 18  # of a dense table that are looked at together

Array = NDArray[Any]


class Difference:
    """What has changed in a table, gathered block by block.

    Parameters
    ----------
    before, after : the generations.
    table : the table's name.
    count : how many of the largest changes to keep.

    Attributes
    ----------
    changed : values that are not the same; what is not finite counts as 0 here.
    new, gone : keys of a sparse table that only one of them has.
    norm : Euclidean norm of the change.
    relative : the same as a share of the norm before; NaN where that is 0.
    cosine : of the angle between both; NaN where one is 0.
    top : (key, column, value before, value after) of the largest changes, largest first.
    """

    def __init__(self, before: Generation, after: Generation, table: str, count: int) -> None:
        self.changed = self.new = self.gone = 0
        self.top: list[tuple[int, int, float, float]] = []
        squares = np.zeros(4)  # of before, after, both, the change
        for keys, old, new in self._blocks(before, after, table):
            a, b = old.astype(np.float64), new.astype(np.float64)
            a[~np.isfinite(a)], b[~np.isfinite(b)] = 0.0, 0.0
            change = b - a
            squares += [(a * a).sum(), (b * b).sum(), (a * b).sum(), (change * change).sum()]
            rows, columns = np.nonzero(change)
            self.changed += rows.size
            if count and rows.size:
                size = np.abs(change[rows, columns])
                most = np.argsort(size)[-count:]
                found = [
                    (int(keys[i]), int(j), float(a[i, j]), float(b[i, j]))
                    for i, j in zip(rows[most], columns[most], strict=True)
                ]
                self.top = sorted(self.top + found, key=lambda each: -abs(each[3] - each[2]))[:count]
        self.norm = float(np.sqrt(squares[3]))
        self.relative = float(np.sqrt(squares[3] / squares[0])) if squares[0] else float("nan")
        both = squares[0] * squares[1]
        self.cosine = float(squares[2] / np.sqrt(both)) if both else float("nan")

    def _blocks(self, before: Generation, after: Generation, table: str) -> Iterator[tuple[Array, Array, Array]]:
        """Keys (n,), values before and after (n, width) of rows; 0 where a generation does not have a key."""
        spec = after.tables[table]
        _check(before.tables.get(table), spec, before)
        if spec.kind == "dense":
            for lo in range(0, spec.rows, ROWS):
                hi = min(spec.rows, lo + ROWS)
                rows = np.arange(lo, hi, dtype=np.uint64)
                yield rows, before.dense(table, lo, hi)[0], after.dense(table, lo, hi)[0]
            return
        alike = before.tables[table].shards == spec.shards
        parts: list[list[int] | None] = [[shard] for shard in range(spec.shards)] if alike else [None]
        for shards in parts:
            old, new = (_of_shards(generation, table, shards) for generation in (before, after))
            keys = np.union1d(old[0], new[0])
            self.new += keys.size - old[0].size
            self.gone += keys.size - new[0].size
            yield keys, _at(keys, *old), _at(keys, *new)


def _check(before: TableSpec | None, after: TableSpec, generation: Generation) -> None:
    shapes = [(each.kind, each.width, each.rows * (each.kind == "dense")) for each in (before, after) if each]
    if len(set(shapes)) != 1 or before is None:
        raise CheckpointError(f'{generation.path}: has no table "{after.name}" of the same kind and shape')


def _of_shards(generation: Generation, table: str, shards: list[int] | None) -> tuple[Array, Array]:
    blocks = [(keys, values) for keys, values, _ in generation.sparse(table, shards)]
    width = generation.tables[table].width
    keys = np.concatenate([np.empty(0, np.uint64), *(block[0] for block in blocks)])
    return keys, np.concatenate([np.empty((0, width)), *(block[1] for block in blocks)])


def _at(wanted: Array, keys: Array, values: Array) -> Array:
    found = np.zeros((wanted.size, values.shape[1]))
    found[np.searchsorted(wanted, keys)] = values
    return found


def differences(found: dict[str, Difference], before: int, after: int) -> Table:
    """A line for each table."""
    shown = Table(title=f"from generation {before} to {after}", title_justify="left")
    shown.add_column("table")
    for column in ("values changed", "new keys", "keys gone", "norm of the change", "relative", "cosine"):
        shown.add_column(column, justify="right")
    for name, each in found.items():
        numbers = [f"{each.changed:,}", f"{each.new:,}", f"{each.gone:,}", f"{each.norm:.6g}"]
        shown.add_row(escape(name), *numbers, f"{each.relative:.3g}", f"{each.cosine:.6f}")
    return shown


def largest(generation: Generation, table: str, found: Difference) -> Table:
    """The largest changes of a table."""
    names = generation.names(table, np.array([key for key, *_ in found.top], np.uint64))
    wide = generation.tables[table].width > 1
    shown = Table(title=escape(f"largest changes of {table}"), title_justify="left")
    for column in ["key", *["name"] * (names is not None), *["column"] * wide, "before", "after", "change"]:
        shown.add_column(column, justify="left" if column == "name" else "right")
    for i, (key, place, a, b) in enumerate(found.top):
        middle = ([escape(names[i])] if names else []) + ([str(place)] if wide else [])
        shown.add_row(str(key), *middle, f"{a:.6g}", f"{b:.6g}", f"{b - a:+.6g}")
    return shown
