"""The job file's section on checkpoints, and what a server needs of it."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

Consistency = Literal["fuzzy", "cut"]


class CheckpointSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where, how often and how many.

    Parameters
    ----------
    folder : the run folder, relative to the current folder; by default ``checkpoints/<job file's name>``.
    every : seconds between generations; 0 writes one at the end only.
    keep : complete generations to keep.
    consistency : "cut": all servers' state at one clock; "fuzzy": of every shard what it is when it is written.
    rate : megabytes a second that a server may write; 0: as fast as the disk.
    compression : gzip's level, 1 to 9; 0: none.
    """

    folder: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    every: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    keep: Annotated[int, msgspec.Meta(ge=1)] = 2
    consistency: Consistency = "fuzzy"
    rate: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    compression: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0


class Writing(NamedTuple):
    """How a server writes its part of generations: to which run folder (None: it writes none), how many megabytes a
    second at most (0: any), and at which of gzip's levels (0: not compressed).
    """

    run: Path | None = None
    rate: float = 0.0
    compression: int = 0
