"""The checkpoint room: generations of all tables in HDF5, written shard by shard, read by any job.

`write` and `master` run in a job; the rest needs neither MPI nor numba, so that a person can look into a
checkpoint anywhere.
"""

from mpips.checkpoint.folder import drop_failed, drop_old, drop_unfinished, generations, next_generation
from mpips.checkpoint.layout import CheckpointError
from mpips.checkpoint.read import Generation
from mpips.checkpoint.spec import CheckpointSpec

__all__ = [
    "CheckpointError",
    "CheckpointSpec",
    "Generation",
    "drop_failed",
    "drop_old",
    "drop_unfinished",
    "generations",
    "next_generation",
]
