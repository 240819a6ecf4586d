"""Rows of shards as they travel from copy to copy: what they have become, not how."""

from typing import Any, NamedTuple

import numpy as np

from mpips.table import TableSpec

Array = np.ndarray[Any, Any]


class Rows(NamedTuple):
    """Some rows of some shards of a table, grouped by shard.

    Parameters
    ----------
    shards : (m,) int64.
    numbers : (m,) int64, of which change of each shard this is the outcome.
    starts : (m + 1,) int64, where the rows of each begin among all, and the end.
    keys : (n,) uint64; or, of neighbouring rows, the first key of each shard's (m,).
    values : (n, width) of the table's dtype.
    state : (n, width·slots) of the table's dtype.
    """

    shards: Array
    numbers: Array
    starts: Array
    keys: Array
    values: Array
    state: Array

    @property
    def are_runs(self) -> bool:
        """Whether keys are the first of neighbouring rows only."""
        return bool(self.keys.size != self.values.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self)

    def pack(self, out: Array) -> None:
        """Lay them into bytes, as many as `size_of`."""
        at = 0
        for array in self:
            out[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)
            at += array.nbytes

    @staticmethod
    def unpack(blob: Array, spec: TableSpec, shards: int, rows: int, runs: bool) -> "Rows":
        """The arrays in some bytes, not copied."""
        end = 3 * shards + 1 + (shards if runs else rows)
        words, cells = blob[: 8 * end].view(np.int64), blob[8 * end :].view(spec.numpy_dtype)
        width, state = spec.width, spec.width * spec.slots
        return Rows(
            words[:shards],
            words[shards : 2 * shards],
            words[2 * shards : 3 * shards + 1],
            words[3 * shards + 1 :].view(np.uint64),
            cells[: rows * width].reshape(rows, width),
            cells[rows * width : rows * (width + state)].reshape(rows, state),
        )

    def only(self, chosen: Array) -> "Rows":
        """Those of the shards where `chosen` (m,) bool is set."""
        if chosen.all():
            return self
        of_rows = np.repeat(chosen, np.diff(self.starts))
        sizes = np.diff(self.starts)[chosen]
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
        keys = self.keys[chosen if self.are_runs else of_rows]
        return Rows(self.shards[chosen], self.numbers[chosen], starts, keys, self.values[of_rows], self.state[of_rows])


def size_of(spec: TableSpec, shards: int, rows: int, runs: bool) -> int:
    """Bytes that so many rows of so many shards take, in whole words."""
    words = 3 * shards + 1 + (shards if runs else rows)
    return (8 * words + rows * spec.row_bytes * (1 + spec.slots) + 7) & ~7
