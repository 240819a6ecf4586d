"""The job file's section on checkpoints."""

from typing import Annotated

import msgspec


class CheckpointSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where, how often and how many.

    Parameters
    ----------
    folder : the run folder, relative to the current folder; by default ``checkpoints/<job file's name>``.
    every : seconds between generations; 0 writes one at the end only.
    keep : complete generations to keep.
    """

    folder: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    every: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    keep: Annotated[int, msgspec.Meta(ge=1)] = 2
