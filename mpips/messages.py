"""Every message of the protocol, on one page.

A message is a small struct sent by point-to-point MPI. Values, keys and batches never travel in one: a message names an
offset in its sender's arena, and the receiver reads there. Offsets and sizes are in bytes.
"""

from functools import reduce
from operator import or_
from typing import Any

import msgspec

from mpips.table import TableSpec


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages."""


# --- the start of a job, in this order ------------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """Any rank → scheduler: here I am."""

    host: str
    pid: int


class DictionaryPart(Message, frozen=True):
    """Data server → first data server: the feature names that my part of the data has."""

    offset: int
    size: int


class DictionaryWhole(Message, frozen=True):
    """First data server → data server: the names of all parts, in order."""

    offset: int
    size: int


class DictionaryTaken(Message, frozen=True):
    """Data server → first data server: I have read the whole dictionary."""


class DataReady(Message, frozen=True):
    """Data server → scheduler: my part is read; so many batches and rows, and what a table needs to hold it."""

    train: int
    test: int
    train_rows: int
    test_rows: int
    skipped: int
    features: int


class CreateTables(Message, frozen=True):
    """Scheduler → server: make your shards of these tables, and fill them from a checkpoint when one is named."""

    tables: list[TableSpec]
    restore: str | None


class TablesReady(Message, frozen=True):
    """Server → scheduler: the shards are there, or why the checkpoint could not be read."""

    error: str | None


class Begin(Message, frozen=True):
    """Scheduler → worker: the tables are there; run your program."""

    tables: list[TableSpec]


# --- push and pull --------------------------------------------------------------------------------------------------


class PushKeys(Message, frozen=True):
    """Worker → server: keys (u64, `count`) at `keys` and their values at `values` in my arena, as task `time`."""

    table: int
    time: int
    count: int
    keys: int
    values: int


class PushRange(Message, frozen=True):
    """Worker → server: the values of rows ``[lo, hi)`` are at `values` in my arena; apply what you own of them."""

    table: int
    time: int
    lo: int
    hi: int
    values: int


class PushReply(Message, frozen=True):
    """Server → worker: task `time` is applied."""

    time: int


class PullKeys(Message, frozen=True):
    """Worker on another node → server: leave the values of these keys in your arena."""

    table: int
    time: int
    count: int
    keys: int


class PullScan(Message, frozen=True):
    """Worker on another node → server: leave the keys in ``[lo, hi)`` that your sparse shards hold, and their
    values.
    """

    table: int
    time: int
    lo: int
    hi: int | None


class PullReply(Message, frozen=True):
    """Server → worker: the answer of task `time`, `count` rows: keys (for a scan) and values, in my arena."""

    time: int
    count: int
    keys: int
    values: int


class PullTaken(Message, frozen=True):
    """Worker → server: I have read the answer of task `time`."""

    time: int


class Refused(Message, frozen=True):
    """Server → worker: task `time` can't be done, and why."""

    time: int
    reason: str


# --- batches and workloads ------------------------------------------------------------------------------------------


class WorkRequest(Message, frozen=True):
    """Worker → scheduler: I can take another workload."""


class Workload(Message, frozen=True):
    """Scheduler → worker: train on, or evaluate, these batches of a data server."""

    number: int
    epoch: int
    train: bool
    data_server: int
    batches: list[int]


class NoMoreWork(Message, frozen=True):
    """Scheduler → worker: the job needs nothing more of you."""


class WorkDone(Message, frozen=True):
    """Worker → scheduler: every push of this workload is acknowledged; `histogram` is an evaluation's packed counts."""

    number: int
    rows: int
    loss: float
    histogram: bytes


class BatchRequest(Message, frozen=True):
    """Worker → data server: have this batch ready in your arena."""

    batch: int


class BatchReady(Message, frozen=True):
    """Data server → worker: the batch is at `offset`, `size` bytes, until you say `BatchTaken`."""

    batch: int
    offset: int
    size: int


class BatchTaken(Message, frozen=True):
    """Worker → data server: I need the batch no longer."""

    batch: int


# --- the course of a job --------------------------------------------------------------------------------------------


class Load(Message, frozen=True):
    """Server → scheduler: share of the time that I was busy since the last report, and what I hold."""

    busy: float
    pushes: int
    bytes: int


class Measure(Message, frozen=True):
    """Scheduler → server: count the non-zeros of your shards."""

    epoch: int


class Measured(Message, frozen=True):
    """Server → scheduler: non-zero values by table."""

    epoch: int
    nonzeros: dict[str, int]


class Checkpoint(Message, frozen=True):
    """Scheduler → server: write your shards as a part of this generation."""

    generation: int


class Saved(Message, frozen=True):
    """Server → scheduler: my part of the generation is on disk, or why not."""

    generation: int
    error: str | None


class Note(Message, frozen=True):
    """Any rank → scheduler: something for the log of the run."""

    text: str


class Finished(Message, frozen=True):
    """Worker → scheduler: my program has returned `result`."""

    result: Any


class Failed(Message, frozen=True):
    """Any rank → scheduler: I can't go on, and why."""

    reason: str


class Stop(Message, frozen=True):
    """Scheduler → any rank: the job is over."""

    exit: str
    reason: str


def any_of_them() -> Any:
    """The union of all message types, for the codec."""
    return reduce(or_, Message.__subclasses__())
