"""What a table is, as every rank knows it: its rows, its shards, and the arena offset of their headers.

Placement is arithmetic: a key gives its shard, and a shard its header, without asking anyone. A shard is the unit
of placement, replication and persistence (Chilimbi et al. 2014, section 5.2: "shards of about 1 MB").
"""

from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

SHARD_BYTES = 1 << 20
MIN_SHARD_BYTES = 1 << 12
LEAST_SHARDS = 16
HEADER_BYTES = 64

Kind = Literal["dense", "sparse"]
DType = Literal["float32", "float64"]


class Normal(msgspec.Struct, frozen=True):
    """Random numbers that a dense table begins with: in each row the first `columns` are from a normal distribution of
    mean 0, the others are 0. The same seed gives the same, whichever server has the row.
    """

    deviation: float
    columns: int
    seed: int


class TableSpec(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A named vector or matrix of shared parameters.

    Parameters
    ----------
    name : the table's name, unique in a job.
    kind : "dense" (keys are the rows 0..rows-1) or "sparse" (any unsigned 64-bit key; grows).
    rows : rows of a dense table; for a sparse one the number of keys to expect, a hint that sets its shards.
    width : values per key.
    dtype : "float32" or "float64".
    rule : the update rule, ``{"name": …, parameter: value, …}``.
    slots : update-state values that the rule keeps per value.
    inputs : numbers that a push has per value.
    initial : what a dense table begins with; None: zeros.
    push_filters, pull_filters : the filters of its pushes and pulls between nodes, ``{"name": …, parameter: value, …}``
        each, in their order; see `mpips.filters`.
    aggregate : apply the pushes of all workers of the main group together, when each has made its n-th, summed in the
        order of the workers; else each on arrival.
    """

    name: str
    kind: Kind = "dense"
    rows: Annotated[int, msgspec.Meta(ge=1)]
    width: Annotated[int, msgspec.Meta(ge=1)] = 1
    dtype: DType = "float32"
    rule: dict[str, Any] = msgspec.field(default_factory=lambda: {"name": "add"})
    slots: int = 0
    inputs: int = 1
    aggregate: bool = False
    initial: Normal | None = None
    push_filters: list[dict[str, Any]] = []
    pull_filters: list[dict[str, Any]] = []

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The type of a value."""
        return np.dtype(self.dtype)

    @cached_property
    def itemsize(self) -> int:
        """Bytes of one value."""
        return self.numpy_dtype.itemsize

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row's values, without its update state."""
        return self.width * self.itemsize

    @cached_property
    def push_width(self) -> int:
        """Numbers that a push has per key."""
        return self.width * self.inputs

    @cached_property
    def shard_bits(self) -> int:
        """Dense: log2 of the rows of a shard. Sparse: log2 of the number of shards."""
        rows = max(MIN_SHARD_BYTES // self.row_bytes, min(SHARD_BYTES // self.row_bytes, self.rows // LEAST_SHARDS), 1)
        shard_rows_log2 = rows.bit_length() - 1
        if self.kind == "dense":
            return shard_rows_log2
        return max(LEAST_SHARDS.bit_length() - 1, (self.rows >> shard_rows_log2).bit_length())

    @cached_property
    def shard_rows(self) -> int:
        """Rows of a dense shard; the last shard may have fewer."""
        return 1 << self.shard_bits

    @cached_property
    def positions(self) -> int:
        """What clocks count: rows of a dense table, shards of a sparse one."""
        return self.rows if self.kind == "dense" else self.shards

    @cached_property
    def shards(self) -> int:
        """Number of shards."""
        if self.kind == "sparse":
            return 1 << self.shard_bits
        return -(-self.rows // self.shard_rows)

    def shard_range(self, shard: int) -> tuple[int, int]:
        """Rows ``[lo, hi)`` of a dense table's shard."""
        lo = shard << self.shard_bits
        return lo, min(self.rows, lo + self.shard_rows)


def header_offsets(tables: list[TableSpec]) -> list[int]:
    """Arena offset of each table's first shard header, the same at every server, and their end."""
    offsets = [0]
    for table in tables:
        offsets.append(offsets[-1] + HEADER_BYTES * table.shards)
    return offsets
