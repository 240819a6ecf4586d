"""Every message of the protocol, on one page.

A message is a small struct sent by point-to-point MPI. Values, keys and batches never travel in one: a message names an
offset in its sender's arena, and the receiver reads there. Offsets and sizes are in bytes.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from operator import or_
from typing import Any, Literal

import msgspec

from mpips.scheduler.view import View
from mpips.table import TableSpec


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages."""


# --- the start of a job, in this order ------------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """Any rank → scheduler: here I am."""

    host: str
    pid: int


class DictionaryWanted(Message, frozen=True):
    """Data server of the first part → data server: when you have the names of all parts, give them to me."""


class DictionaryPart(Message, frozen=True):
    """Data server → data server of the first part: the feature names that this part of the data has; give me those of
    all parts.
    """

    part: int
    offset: int
    size: int


class DictionaryWhole(Message, frozen=True):
    """Data server → data server: the names of all parts, in order."""

    offset: int
    size: int


class DictionaryTaken(Message, frozen=True):
    """Data server → data server: I have read, or need not read, your names of this part; None: of all."""

    part: int | None


class DataReady(Message, frozen=True):
    """Data server → scheduler: this part of the data is read; so many batches and rows, what a table needs to hold it,
    and the key range of each field, if keys are from a dictionary.
    """

    part: int
    train: int
    test: int
    train_rows: int
    test_rows: int
    skipped: int
    features: int
    groups: list[tuple[int, int]]


class CreateTables(Message, frozen=True):
    """Scheduler → server: make your shards of these tables, and fill them from a checkpoint when one is named."""

    tables: list[TableSpec]
    restore: str | None


class TablesReady(Message, frozen=True):
    """Server → scheduler: the shards are there, or why the checkpoint could not be read."""

    error: str | None


class Begin(Message, frozen=True):
    """Scheduler → worker: the tables are there; run your program. `groups` are the key ranges of the data's fields,
    `identity` is whose pushes yours are: your own, or those of the worker whose program you run again.
    """

    tables: list[TableSpec]
    groups: list[tuple[int, int]]
    identity: int


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


# --- views ----------------------------------------------------------------------------------------------------------


class NewView(Message, frozen=True):
    """Scheduler → any rank: from now on this is who does what."""

    view: View


class Bear(Message, frozen=True):
    """Scheduler → any rank that was there at the start: start a process on your node, which is to become this rank."""

    rank: int


class Meet(Message, frozen=True):
    """Parent of a rank that comes to the job → any other: it is to know you; say that you are coming, and come."""

    rank: int


class Coming(Message, frozen=True):
    """Any rank → parent of a rank that comes to the job: I am about to meet it."""

    rank: int


class Born(Message, frozen=True):
    """Parent → scheduler: the rank that I was to start knows all others that live; or why there is none."""

    rank: int
    error: str | None = None


class ViewTaken(Message, frozen=True):
    """Any rank → scheduler: I act by this view."""

    number: int


class CopiesWhole(Message, frozen=True):
    """Server → scheduler: I have every shard that this view has me copy."""

    number: int


class Drain(Message, frozen=True):
    """Scheduler → server: shards are to have other heads: apply no more pushes in this view, and say when all that you
    have applied is at every copy.
    """

    number: int


class Drained(Message, frozen=True):
    """Server → scheduler: it is."""

    number: int


class Release(Message, frozen=True):
    """Scheduler → server: all ranks have taken this view; give the shards back that you have no part in any more."""

    number: int


class Resumed(Message, frozen=True):
    """Worker → scheduler: the first push that had to be sent again for this view is acknowledged, or the first batch
    that had to be asked for again is there.
    """

    number: int


class Alive(Message, frozen=True):
    """Server, data server or standby → scheduler, scheduler → standby: I am at work."""


# --- succession: what is said to the scheduler and by it is numbered, and said again to and by a new one ------------


class ToScheduler(Message, frozen=True):
    """Any rank → scheduler: the `number`-th thing that I say to whoever is the scheduler, encoded; I have heard the
    first `heard` that it said to me.
    """

    number: int
    heard: int
    message: bytes


class FromScheduler(Message, frozen=True):
    """Scheduler → any rank: the `number`-th thing that a scheduler says to you, encoded; the first `heard` that you
    said are safe.
    """

    number: int
    heard: int
    message: bytes


class SchedulerHeard(Message, frozen=True):
    """Any rank → scheduler: I have heard the first `number` things that it said to me."""

    number: int


class RankHeard(Message, frozen=True):
    """Scheduler → any rank: the first `number` things that you said are safe."""

    number: int


class Input(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what the scheduler's log holds; `time` is seconds on the scheduler's clock."""

    time: float


class Said(Input, frozen=True):
    """A rank has said its `number`-th thing, and heard the first `heard` of what it was told."""

    source: int
    number: int
    heard: int
    message: bytes


class Heard(Input, frozen=True):
    """A rank has heard the first `heard` things that it was told."""

    source: int
    heard: int


class Ticked(Input, frozen=True):
    """The time has come for something."""


class Died(Input, frozen=True):
    """A rank is dead; `silent`: it is taken for dead, since nothing was heard of it for too long."""

    rank: int
    silent: bool = False


class Interrupted(Input, frozen=True):
    """Someone wants the job to end."""

    reason: str


class Broken(Input, frozen=True):
    """Something is wrong on the scheduler's rank."""

    reason: str


class Completed(Input, frozen=True):
    """The generation is complete, or why it is not."""

    error: str | None


class Scaled(Input, frozen=True):
    """Somebody asks, under a name, for so many servers and workers, and for so many spares more."""

    name: str
    servers: int | None
    workers: int | None
    spares: int | None = None


class Conducted(Input, frozen=True):
    """The scheduler's own program has returned."""


class Snapshot(Message, frozen=True):
    """Scheduler → standby: this is my state after the first `index` inputs. Of two snapshots the one of the later view
    counts.
    """

    view: int
    index: int
    state: bytes


class Inputs(Message, frozen=True):
    """Scheduler → standby: what has come in after the first `index` inputs; what followed from the first `done` has
    been done.
    """

    index: int
    done: int
    inputs: list[Said | Heard | Ticked | Died | Interrupted | Broken | Completed | Scaled | Conducted]


class Mirrored(Message, frozen=True):
    """Standby → scheduler: I have the first `index` inputs."""

    index: int


# --- tasks: each has a time, counted by the rank that asks, and the times of the tasks that it comes after ----------


class Coded(msgspec.Struct, frozen=True, array_like=True):
    """How filters have packed keys and values: bytes of each in the arena, and a note of each filter."""

    keys: int
    values: int
    notes: list[Any]


class Push(Message, frozen=True):
    """Worker → server: updates for `count` keys within ``[lo, hi)`` lie in my arena; they are those of your shards in
    this view.

    Clocks know it as push number `step` of `identity` to this table; `part` tells apart what several servers, or one
    after the other, are sent of a push. `keys` is the offset of the keys (uint64), or None when there is one update for
    every position of the range. What is sent again, to another server than at first, may lie in more than one place:
    `more` has (keys, values, count) of the others.
    """

    time: int
    after: list[int]
    view: int
    part: int
    table: int
    identity: int
    step: int
    lo: int
    hi: int
    count: int
    keys: int | None
    values: int
    coded: Coded | None
    more: list[tuple[int, int, int]] = []


class PushReply(Message, frozen=True):
    """Server → worker: this part of task `time` is applied, at every copy."""

    time: int
    part: int


class Pull(Message, frozen=True):
    """Worker on another node → server: leave the values of these keys in your arena; with `above`, also whether this
    slot of their state is above this threshold.
    """

    time: int
    after: list[int]
    view: int
    table: int
    count: int
    keys: int
    coded: Coded | None
    above: tuple[int, float] | None


class PullScan(Message, frozen=True):
    """Worker on another node → server: leave the keys in ``[lo, hi)`` that your sparse shards hold, and their
    values.
    """

    time: int
    after: list[int]
    view: int
    table: int
    lo: int
    hi: int | None


class PullReply(Message, frozen=True):
    """Server → worker: the answer of task `time`, `count` rows: keys (for a scan), values, and `flags` bytes of packed
    bits (if they were asked for), in my arena.
    """

    time: int
    count: int
    keys: int
    values: int
    coded: Coded | None
    flags: int


class KeysWanted(Message, frozen=True):
    """Server → worker: of task `time` I know the signature of the keys, but not the keys: give them to me."""

    time: int
    table: int
    direction: Literal["push", "request"]
    signature: int


class KeysGiven(Message, frozen=True):
    """Worker → server: `count` of the keys (uint64) of task `time` lie in my arena, and `left` more will follow when
    you have said `KeysTaken`.
    """

    time: int
    count: int
    keys: int
    left: int


class KeysTaken(Message, frozen=True):
    """Server → worker: I have read the keys of task `time` that you have given me."""

    time: int


class CallShards(Message, frozen=True):
    """Worker → server: run a registered function on your shards of ``[lo, hi)``, with an argument of `numbers` float64
    that lies in my arena; leave its reply in yours. One that writes has part, identity and step as a push has; else 0.
    """

    time: int
    after: list[int]
    view: int
    part: int
    table: int
    identity: int
    step: int
    function: str
    lo: int
    hi: int | None
    argument: int
    numbers: int


class ShardsReply(Message, frozen=True):
    """Server → worker: the reply of task `time`, or of this part of it, lies in my arena."""

    time: int
    part: int
    offset: int
    size: int
    dtype: str
    shape: list[int]


class Taken(Message, frozen=True):
    """Whoever asked → who was asked: I have read the answer of task `time`, or of this part of it."""

    time: int
    part: int = 0


class Call(Message, frozen=True):
    """Any rank → any rank: run a registered Python function."""

    time: int
    after: list[int]
    function: str
    argument: Any


class CallReply(Message, frozen=True):
    """The function of task `time` has returned, and all that it asked for is done."""

    time: int
    result: Any


class Sum(Message, frozen=True):
    """Worker → scheduler: my part of the `number`-th sum over my group."""

    time: int
    number: int
    values: list[float]


class SumReply(Message, frozen=True):
    """Scheduler → worker: the sum over all workers of the group, in their order."""

    time: int
    values: list[float]


class Refused(Message, frozen=True):
    """Whoever was asked → who asked: task `time` can't be done, and why."""

    time: int
    reason: str


# --- copies ---------------------------------------------------------------------------------------------------------


class Change(Message, frozen=True):
    """Server → next of a chain: rows of your copies have become what lies in my arena, packed as `server.rows` has it.

    `number` is what you acknowledge it by, `steps` are those of the pushes that did it, (identity, lo, hi, step) each;
    the head has applied them in view `applied`, 0 for none in particular. Of the kind "rows" it follows the last change
    of these shards that you have; "whole" is a shard to take as a new copy, with all that the clock knows of it; "same"
    says that the copy that you have of a shard is up to date. `shards` and `rows` are counts; with `runs` the rows of
    each shard are neighbours.
    """

    view: int
    number: int
    table: int
    applied: int
    kind: Literal["rows", "whole", "same"]
    shards: int
    rows: int
    runs: bool
    offset: int
    size: int
    steps: list[tuple[int, int, int, int]]


class ChangeTaken(Message, frozen=True):
    """Next of a chain → server: your change is here, and at every copy after mine in the chains of my view."""

    view: int
    number: int


class ShardsWanted(Message, frozen=True):
    """Server → the one before it in a chain: give me copies of these shards: table, shard, and the number of the last
    change that my copy has, or -1 without one.
    """

    view: int
    wanted: list[tuple[int, int, int]]


# --- batches and workloads ------------------------------------------------------------------------------------------


class WorkRequest(Message, frozen=True):
    """Worker → scheduler: I can take another workload."""


class Workload(Message, frozen=True):
    """Scheduler → worker: train on, or evaluate, these batches of a part of the data.

    They count as those of `identity`, the worker that was given them first, whoever does them; `first` is the number of
    the first of them among all that it was ever given.
    """

    number: int
    epoch: int
    train: bool
    part: int
    batches: list[int]
    identity: int
    first: int


class Cancelled(Message, frozen=True):
    """Scheduler → worker: another worker has done this workload; leave the rest of it."""

    number: int


class NoMoreWork(Message, frozen=True):
    """Scheduler → worker: the job needs nothing more of you."""


class WorkDone(Message, frozen=True):
    """Worker → scheduler: every push of this workload is acknowledged; `histogram` is an evaluation's packed counts,
    `waited` the seconds that I had no workload since the last such message.
    """

    number: int
    rows: int
    loss: float
    histogram: bytes
    waited: float = 0.0


class BatchRequest(Message, frozen=True):
    """Worker → data server: have this batch of a part ready in your arena; it is my request `number`."""

    number: int
    part: int
    batch: int


class BatchReady(Message, frozen=True):
    """Data server → worker: the batch of request `number` is at `offset`, `size` bytes, until you say `BatchTaken`."""

    number: int
    offset: int
    size: int


class BatchTaken(Message, frozen=True):
    """Worker → data server: I need the batch of request `number` no longer, or not of you."""

    number: int


# --- the course of a job --------------------------------------------------------------------------------------------


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


class Measure(Message, frozen=True):
    """Scheduler → server: count the non-zeros of your shards."""

    epoch: int


class Measured(Message, frozen=True):
    """Server → scheduler: non-zero values by table, and the traffic of this server up to now."""

    epoch: int
    nonzeros: dict[str, int]
    traffic: Traffic


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


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(reduce(or_, Message.__subclasses__()))
encode: Callable[[Message], bytes] = _encoder.encode
decode: Callable[[bytes], Any] = _decoder.decode
