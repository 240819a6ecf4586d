"""Keys as a user names them: a range, or a sorted list; checked, and grouped by the servers that have them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpips.errors import Error
from mpips.kernels.gather import check_keys
from mpips.kernels.partition import group, positions
from mpips.table import TableSpec

Array = np.ndarray[Any, Any]

MOST_KEYS = 1 << 64
NO_ORDER = np.empty(0, np.int64)


class KeyRangeError(Error, KeyError):
    """Keys that are not sorted, not unique or out of the table's range."""

    __str__ = Exception.__str__


class ShapeError(Error, ValueError):
    """Values, or an array to read into, that do not have the shape that the keys ask for."""


class Keys:
    """A sorted list of unique keys, checked and grouped by server once, for any number of pushes and pulls.

    Made by `Table.keys`.

    Attributes
    ----------
    array : (n,) uint64, the keys.
    order : (n,) int64, their positions grouped by server and shard; of size 0 when they are so already.
    bounds : where the group of each server begins and ends, one more than there are servers.
    placement : which has these servers; another one groups them anew.
    """

    __slots__ = ("array", "bounds", "order", "placement")

    def __init__(self, array: Array, order: Array, bounds: list[int]) -> None:
        self.array = array
        self.order = order
        self.bounds = bounds
        self.placement: Placement | None = None


class Placement:
    """Which server has which shard of a table.

    Parameters
    ----------
    spec : the table.
    view : the number of the view that says so.
    heads : server of each shard.

    Attributes
    ----------
    servers : all of them, in order.
    """

    def __init__(self, spec: TableSpec, view: int, heads: Sequence[int]) -> None:
        self.view = view
        self.heads = heads
        self.servers = sorted(set(heads))
        self._spec = spec
        position = {server: i for i, server in enumerate(self.servers)}
        self._server_of = np.array([position[head] for head in heads], np.int64)

    def keys(self, keys: Any) -> Keys:
        """Check a key list and group it by server; see `key_list`. One that was grouped for another placement is
        grouped for this one.
        """
        if not isinstance(keys, Keys):
            grouped = key_list(self._spec, keys, self._server_of, len(self.servers))
        elif keys.placement is self:
            return keys
        else:
            grouped = key_list(self._spec, keys.array, self._server_of, len(self.servers))
            keys.order, keys.bounds = grouped.order, grouped.bounds
            grouped = keys
        grouped.placement = self
        return grouped

    def heads_of(self, keys: Array) -> Array:
        """The server of each key (n,) uint64, as (n,) int64."""
        dense, bits = self._spec.kind == "dense", self._spec.shard_bits
        shards = positions(keys, dense, bits) >> (bits if dense else 0)
        heads: Array = np.array(self.servers, np.int64)[self._server_of[shards]]
        return heads

    def changed_from(self, other: "Placement") -> set[int]:
        """The servers that have other shards here than in another placement."""
        pairs = zip(self.heads, other.heads, strict=True)
        return {server for pair in pairs if pair[0] != pair[1] for server in pair}

    def servers_of(self, lo: int, hi: int) -> list[int]:
        """The servers that have any of the positions ``[lo, hi)``."""
        bits = self._spec.shard_bits if self._spec.kind == "dense" else 0
        return sorted(set(self.heads[lo >> bits : ((hi - 1) >> bits) + 1])) if hi > lo else []

    def rows_of(self, lo: int, hi: int) -> dict[int, int]:
        """How many of the rows ``[lo, hi)`` of a dense table each server has, by server, in order."""
        found = dict.fromkeys(self.servers_of(lo, hi), 0)
        for shard in range(lo >> self._spec.shard_bits, ((hi - 1) >> self._spec.shard_bits) + 1):
            first, last = self._spec.shard_range(shard)
            found[self.heads[shard]] += min(hi, last) - max(lo, first)
        return found


def key_list(spec: TableSpec, keys: Any, server_of: Array, servers: int) -> Keys:
    """Check a key list and group it by server.

    Parameters
    ----------
    keys : (n,) integers.
    server_of : (shards,) int64, position of each shard's server.
    servers : how many servers there are.

    Raises
    ------
    KeyRangeError
        when they are not sorted, not unique or not in the table.
    """
    array = keys if isinstance(keys, np.ndarray) else _integers(keys, spec.name)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise KeyRangeError(f'table "{spec.name}": keys must be a list of integers, got {array.dtype} {array.shape}')
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise KeyRangeError(f'table "{spec.name}": key {array.min()} is negative')
    array = np.ascontiguousarray(array, np.uint64)
    dense = spec.kind == "dense"
    wrong = check_keys(array, np.uint64(spec.rows if dense else 0))
    if wrong >= 0:
        key = array[wrong]
        if dense and key >= spec.rows:
            raise KeyRangeError(f'table "{spec.name}": key {key} is out of range [0, {spec.rows})')
        raise KeyRangeError(
            f'table "{spec.name}": keys must be sorted and unique, but {array[wrong - 1]} precedes {key}'
        )
    if servers == 1 and dense:
        return Keys(array, NO_ORDER, [0, array.size])
    order, bounds = group(array, dense, spec.shard_bits, server_of, servers)
    return Keys(array, order, bounds.tolist())


def key_range(spec: TableSpec, keys: range | slice) -> tuple[int, int | None]:
    """The bounds of a key range ``[lo, hi)``; hi is None for all that 64 bits can hold.

    Raises
    ------
    KeyRangeError
        when it has a step or is not within the table.
    """
    end = spec.rows if spec.kind == "dense" else MOST_KEYS
    lo = 0 if keys.start is None else int(keys.start)
    hi = end if keys.stop is None else int(keys.stop)
    if keys.step not in (None, 1):
        raise KeyRangeError(f'table "{spec.name}": a key range has no step, got {keys}')
    if not 0 <= lo <= hi <= end:
        raise KeyRangeError(f'table "{spec.name}": range [{lo}, {hi}) is not within [0, {end})')
    return lo, None if hi == MOST_KEYS else hi


def _integers(keys: Any, table: str) -> Array:
    """A list as an array; NumPy alone would make floats of a list with small and very large integers."""
    listed = list(keys)
    wrong = [key for key in listed if not isinstance(key, int | np.integer) or not 0 <= key < MOST_KEYS]
    if wrong:
        raise KeyRangeError(f'table "{table}": keys must be integers from 0 to 2^64 - 1, got {wrong[0]!r}')
    return np.array(listed, np.uint64)
