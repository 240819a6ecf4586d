"""Workloads: what the scheduler hands out to workers, and what comes of it."""

from mpips.messages.message import Message


class WorkRequest(Message, frozen=True):
    """Worker → scheduler: I can take another workload."""


class Workload(Message, frozen=True):
    """Scheduler → worker: train on, or evaluate, these batches of a part of the data.

    They count as those of `identity`, the worker that was given them first, whoever does them; `first` is the number of
    the first of them among all that it was ever given. What is pushed for them is in no generation up to `cut` that is
    a cut. `begun` is the share of the epoch's batches that was handed out before.
    """

    number: int
    epoch: int
    train: bool
    part: int
    batches: list[int]
    identity: int
    first: int
    cut: int = 0
    begun: float = 0.0


class Cancelled(Message, frozen=True):
    """Scheduler → worker: another worker has done this workload; leave the rest of it."""

    number: int


class NoMoreWork(Message, frozen=True):
    """Scheduler → worker: the job needs nothing more of you."""


class WorkDone(Message, frozen=True):
    """Worker → scheduler: every push of this workload is acknowledged; `counts` is what an evaluation counted, packed,
    `waited` the seconds that I had no workload since the last such message.
    """

    number: int
    rows: int
    loss: float
    counts: bytes
    waited: float = 0.0
