"""What a job may say about losses and about its size: the job file's sections [recovery] and [[plan]]."""

from typing import Annotated, Literal

import msgspec

from mpips.plan import OnWorkerLoss
from mpips.quantities import Seconds

Count = Annotated[int, msgspec.Meta(ge=1)]


class RecoverySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes up for a lost rank.

    Parameters
    ----------
    replicas : copies of every shard besides the first, as far as there are servers for them.
    on_worker_loss : what becomes of a dead worker's work: a spare takes its place, or the other workers do it, or it is
        left undone.
    patience : seconds that a server, data server or scheduler may be silent before it is taken for dead though its
        process lives.
    copy_share : share of a server's time that goes into copying shards in the background; where ranks share cores, of
        the time that it has then.
    """

    replicas: Annotated[int, msgspec.Meta(ge=0)] = 1
    on_worker_loss: OnWorkerLoss = "replace"
    patience: Annotated[float, msgspec.Meta(gt=0)] | Literal["never"] = "never"
    copy_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1

    @property
    def limit(self) -> float | None:
        """The patience as a plan has it; None: without end."""
        return None if self.patience == "never" else self.patience


class ScaleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[plan]]``: how many servers and workers there are to be from some time on.

    Parameters
    ----------
    at : seconds after training began, or
    epoch : the epoch at whose beginning it is, counted from 1.
    servers, workers : their numbers; None leaves them as they are.
    """

    at: Seconds | None = None
    epoch: Count | None = None
    servers: Count | None = None
    workers: Count | None = None

    def __post_init__(self) -> None:
        if (self.at is None) == (self.epoch is None):
            raise ValueError('must say when: at = "90 s" or epoch = 3')
        if self.servers is None and self.workers is None:
            raise ValueError("must say what changes: servers = 3, workers = 4 or both")
