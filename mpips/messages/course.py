"""From the start of a job to its end: what ranks and the scheduler tell each other about all of it."""

from collections.abc import Iterable
from typing import Any

import msgspec

from mpips.messages.message import Message
from mpips.table import TableSpec


class Hello(Message, frozen=True):
    """Any rank → scheduler: here I am."""

    host: str
    pid: int


class DataReady(Message, frozen=True):
    """Data server → scheduler: this part of the data is read; so many batches and rows, what a table needs to hold it,
    and the key range of each field, if keys are from a dictionary. `named` has the keys of the features that the plan
    names.
    """

    part: int
    train: int
    test: int
    train_rows: int
    test_rows: int
    skipped: int
    features: int
    groups: list[tuple[int, int]]
    named: dict[str, int] = msgspec.field(default_factory=dict)


class CreateTables(Message, frozen=True):
    """Scheduler → server: make your shards of these tables, and fill them from a checkpoint when one is named; record
    what happens to the keys `trace`, by table.
    """

    tables: list[TableSpec]
    restore: str | None
    trace: dict[str, list[int]] = msgspec.field(default_factory=dict)


class TablesReady(Message, frozen=True):
    """Server → scheduler: the shards are there, or why the checkpoint could not be read."""

    error: str | None


class Begin(Message, frozen=True):
    """Scheduler → worker: the tables are there; run your program. `groups` are the key ranges of the data's fields,
    `identity` is whose pushes yours are: your own, or those of the worker whose program you run again; `cut` as of
    `Cut`.
    """

    tables: list[TableSpec]
    groups: list[tuple[int, int]]
    identity: int
    cut: int = 0


class Traffic(msgspec.Struct, frozen=True, array_like=True):
    """Bytes to other nodes: as they would be without filters, as sent, and what each filter has saved; and bytes that
    this rank has read one-sidedly from servers' arenas.
    """

    raw: int = 0
    sent: int = 0
    saved: dict[str, int] = {}
    fetched: int = 0

    @staticmethod
    def total(parts: "Iterable[Traffic]") -> "Traffic":
        """All of it together."""
        raw, sent, fetched, saved = 0, 0, 0, dict[str, int]()
        for part in parts:
            raw, sent, fetched = raw + part.raw, sent + part.sent, fetched + part.fetched
            for name, count in part.saved.items():
                saved[name] = saved.get(name, 0) + count
        return Traffic(raw, sent, saved, fetched)


class Load(Message, frozen=True):
    """Server or worker → scheduler: share of the time that I was busy since the last report, pushes that I have taken
    or made, bytes in use of my arena.
    """

    busy: float
    pushes: int
    bytes: int
    traffic: Traffic


class Report(Message, frozen=True):
    """Worker → scheduler: figures of my program, such as its objective, for the log and the result; `idle` is the share
    of its time that I have waited since the last such message.
    """

    figures: dict[str, float]
    idle: float = 0.0


class SetDelay(Message, frozen=True):
    """Scheduler → worker: from now on so many pushes may be unfinished when a pull begins; None: any number."""

    delay: int | None


class Trace(Message, frozen=True):
    """Scheduler → server: from now on record what happens to these keys, by table, and to no others."""

    keys: dict[str, list[int]]


class Measure(Message, frozen=True):
    """Scheduler → server: count the non-zeros of your shards."""

    epoch: int


class Measured(Message, frozen=True):
    """Server → scheduler: non-zero values by table, and the traffic of this server up to now."""

    epoch: int
    nonzeros: dict[str, int]
    traffic: Traffic


class Checkpoint(Message, frozen=True):
    """Scheduler → server: write your shards as a part of this generation.

    Those are left out that have not changed since they were written in one of the generations from `worn` to `base`.
    With `cut` they are written without what is pushed after the cut; all that was pushed before is applied.
    """

    generation: int
    base: int = 0
    worn: int = 0
    cut: bool = False


class Cut(Message, frozen=True):
    """Scheduler → worker: what you push from now on is not in generation `generation`, but for what belongs to
    workloads that you were given before; say when all that is in it is acknowledged.
    """

    generation: int


class CutOver(Message, frozen=True):
    """Scheduler → server: no cut up to this generation's will be written any more; what was kept for it can go."""

    generation: int


class Crossed(Message, frozen=True):
    """Worker → scheduler: all is acknowledged that I have pushed before the cut that makes this generation."""

    generation: int


class Saved(Message, frozen=True):
    """Server → scheduler: my part of the generation is on disk, or why not."""

    generation: int
    error: str | None


class Note(Message, frozen=True):
    """Any rank → scheduler: something for the log of the run."""

    text: str


class Finished(Message, frozen=True):
    """Worker → scheduler: my program has returned `result`; `idle` is the share of its time that it waited."""

    result: Any
    idle: float
    traffic: Traffic


class Failed(Message, frozen=True):
    """Any rank → scheduler: I can't go on, and why."""

    reason: str


class Stop(Message, frozen=True):
    """Scheduler → any rank: the job is over."""

    exit: str
    reason: str
