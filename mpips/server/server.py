"""The server's role: messages in, shards changed or read, replies out."""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mpips.checkpoint import CheckpointError
from mpips.checkpoint.spec import Writing
from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.fabric.meter import Meter
from mpips.kernels.partition import positions
from mpips.line import Line
from mpips.messages import (
    CallShards,
    Change,
    ChangeTaken,
    Coded,
    CopiesWhole,
    CreateTables,
    Drain,
    Drained,
    Failed,
    Load,
    Measure,
    Measured,
    Message,
    Pull,
    PullReply,
    PullScan,
    Push,
    PushReply,
    Release,
    ShardsWanted,
    TablesReady,
    Traffic,
)
from mpips.rule import RuleError
from mpips.server.aggregate import Aggregate, Part
from mpips.server.answers import Answers
from mpips.server.called import Called
from mpips.server.checkpoints import Checkpoints
from mpips.server.coalescing import Applied
from mpips.server.copies import Copies
from mpips.server.cut import CutHere
from mpips.server.gate import Gate
from mpips.server.incoming import Incoming
from mpips.server.replication import Replication
from mpips.server.shards import Shards
from mpips.server.tracing import Tracing
from mpips.server.updates import Updates
from mpips.table import TableSpec, header_offsets
from mpips.tasks import Received
from mpips.tasks.countdown import Countdown, Then
from mpips.views.chains import chains_of
from mpips.views.view import MAIN, View

Array = np.ndarray[Any, Any]
EMPTY = np.empty(0, np.uint8)
WhenSummed = Callable[[int, int, int, Array | None, Then], None]


def _within(
    shards: Shards, ranges: list[tuple[int, int]], lo: int, keys: Array | None, values: Updates
) -> tuple[Array, Array]:
    """Of a push's keys and values those at some ranges of positions; of rows those of shards that are led."""
    spec = shards.spec
    if keys is None:
        led = [(each, spec.shard_range(shard)) for each in ranges for shard in shards.in_range(*each)]
        runs = [(max(start, first), min(end, last)) for (start, end), (first, last) in led]
        keys = np.concatenate([np.empty(0, np.uint64), *(np.arange(*run, dtype=np.uint64) for run in runs)])
        return keys, np.concatenate([values[:0], *(values[start - lo : end - lo] for start, end in runs)])
    at = positions(keys, spec.kind == "dense", spec.shard_bits)
    chosen = np.zeros(keys.size, np.bool_)
    for start, end in ranges:
        chosen |= (at >= start) & (at < end)
    return keys[chosen], values[chosen]


class Server:
    """Registers the handlers of a server at a fabric; the rank's loop does the rest.

    Parameters
    ----------
    fabric, view, line, received : this rank's.
    writing : how checkpoints are written.
    threads : kernels that may run at once.
    copy_share : share of its time, in a view, that it makes copies in the background in.
    """

    def __init__(
        self,
        fabric: Fabric,
        view: View,
        line: Line,
        received: Received,
        writing: Writing,
        threads: int,
        copy_share: Callable[[View], float],
    ) -> None:
        self.tables: list[Shards] = []
        self._aggregators: dict[int, Aggregate] = {}
        self._received = received
        self._fabric = fabric
        self._view = view
        self._line = line
        self._threads = threads
        self._incoming = Incoming(fabric, received.refuse)
        self._replication = Replication(fabric, self._incoming, copy_share, lambda view: line.tell(CopiesWhole(view)))
        self._answers = Answers(fabric, received)
        self._cut = CutHere(self.tables, fabric)
        self._checkpoints = Checkpoints(self.tables, self._cut, fabric, line, writing)
        self._tracing = Tracing(fabric, self.tables, line, writing.run)
        handlers: dict[type[Message], Callable[[int, Any], None]] = {
            Push: self._push,
            Pull: self._pull,
            PullScan: self._pull_scan,
            Change: self._replication.change,
            ChangeTaken: self._replication.taken,
            ShardsWanted: self._replication.wanted,
        }
        self._gate = Gate(received, view.number, handlers)
        ways = self._incoming, self._replication, self._cut, self._gate, self._answers, self._tracing
        called = Called(self.tables, fabric, received, *ways)
        handlers[CallShards] = called.call
        for kind in handlers:
            fabric.on(kind, self._gate.take)
        self._pushes = 0
        self._meter = Meter(fabric)
        fabric.on(CreateTables, self._create)
        fabric.on(Drain, self._drain)
        fabric.on(Release, self._release)
        fabric.on(Measure, self._measure)
        fabric.background.append(self._report)

    # --- tables -----------------------------------------------------------------------------------------------------

    def _create(self, source: int, message: CreateTables) -> None:
        error = None
        try:
            if not self.tables:
                self._hold(message.tables)
            self._tracing.trace(message.trace)
            if message.restore is not None:
                self._checkpoints.restore(Path(message.restore))
        except CheckpointError as problem:
            error = str(problem)
        except ArenaFull as problem:
            self._line.tell(Failed(f"server {self._fabric.rank} has no room for its tables: {problem}"))
            return
        except RuleError as problem:
            self._line.tell(Failed(str(problem)))
            return
        self._line.tell(TablesReady(error))
        self._gate.take_early()

    def _hold(self, tables: list[TableSpec]) -> None:
        offsets = header_offsets(tables)
        self._incoming.tables = tables
        self._fabric.space.first(offsets[-1])
        for spec, headers in zip(tables, offsets, strict=False):
            shards = Shards(spec, headers, self._fabric.arena, self._fabric.space, self._threads)
            chains, me = chains_of(self._view, spec).chains, self._fabric.rank
            shards.hold(shard for shard, chain in enumerate(chains) if me in chain.servers[: chain.copies])
            shards.warm()
            if self._view.replicas or self._view.spares or self._view.ring != self._view.target:
                shards.warm_for_copies()  # a server that joins or leaves has copies made, too
            table = len(self.tables)
            if spec.aggregate:
                identities = self._view.identities[MAIN]
                self._aggregators[table] = Aggregate(
                    spec, identities, partial(self._apply, table), self._aggregated(table, shards)
                )
            self.tables.append(shards)
            self._replication.tables.append(Copies(shards))
        self._gate.since = [self._view.number] * len(tables)
        self._replication.viewed(self._view, lambda: None)
        self._checkpoints.hold()

    # --- views ------------------------------------------------------------------------------------------------------

    def viewed(self, old: View, new: View) -> None:
        """Take the places in chains of a new view."""
        self._view, self._gate.view = new, new.number
        for rank in set(new.lost) - set(old.lost):
            self._received.forget(rank)
            self._incoming.forget(rank)
            self._answers.forget(rank)
        for rank in set(new.workers) - set(old.workers):
            self._incoming.greet(rank)
        if not self.tables:
            return
        led = [list(shards.led) for shards in self.tables]
        self._replication.viewed(new, lambda: self._drop_what_is_sent_again(led))
        for aggregator in self._aggregators.values():
            aggregator.keep(new.identities[MAIN])
        self._gate.go_on()

    def _drop_what_is_sent_again(self, led: list[list[int]]) -> None:
        """Where this server led other shards in the view before, by table, workers send again what is not done."""
        for table, shards in enumerate(self.tables):
            if shards.led != led[table]:
                self._gate.since[table] = self._view.number
                self._checkpoints.give_up()
                self._received.leave(table)
                if table in self._aggregators:
                    self._aggregators[table].forget()

    def _drain(self, source: int, message: Drain) -> None:
        """Apply nothing more before the next view, and say when every copy has what was applied."""
        if message.number != self._view.number:
            return
        self._gate.resting = message.number
        self._replication.drain(lambda: self._drained(message.number))

    def _drained(self, number: int) -> None:
        if self._gate.resting == number:
            self._line.tell(Drained(number, self._replication.copied))

    def _release(self, source: int, message: Release) -> None:
        if message.number == self._view.number:
            self._replication.release()

    # --- push -------------------------------------------------------------------------------------------------------

    def _push(self, source: int, message: Push) -> None:
        def run() -> None:
            if self._gate.is_outdated(source, message):
                return
            if message.coded is not None and not self._is_new(message):
                self._arrived(source, message, None, EMPTY)  # what a filter has decoded once it must not decode again
            else:
                led = self.tables[message.table].runs(message.lo, message.hi) if message.keys is None else []
                self._incoming.push(
                    source, message, led, lambda keys, values: self._arrived(source, message, keys, values)
                )

        lane = message.table, source
        self._received.take(source, message.time, message.after, run, lane, message.part)

    def _is_new(self, message: Push) -> bool:
        clock = self.tables[message.table].clock
        return bool(clock.fresh(message.identity, message.lo, message.hi, message.step))

    def _arrived(self, source: int, message: Push, keys: Array | None, values: Updates) -> None:
        """Apply what is not a repetition in a push, or add the push to those of the other workers."""
        if self._gate.holds_up(lambda: self._arrived(source, message, keys, values)):
            return
        if self._gate.is_outdated(source, message):
            return
        lo, hi, identity, step = message.lo, message.hi, message.identity, message.step
        shards = self.tables[message.table]

        def done(problem: Error | None = None) -> None:
            if problem is not None:
                self._received.refuse(source, message.time, str(problem), message.part)
            else:
                copied.done()

        def answer() -> None:
            self._pushes += 1
            self._fabric.send(source, PushReply(message.time, message.part))
            self._received.done(source, message.time, message.part)

        def dropped() -> None:
            self._received.drop(source, message.time, message.part)

        fresh, copied = shards.clock.fresh(identity, lo, hi, step), Countdown(answer)
        if fresh != [(lo, hi)]:  # of shards that are not led the clock knows only what happened to concern others, too
            self._replication.when_all_is_taken(copied.one_more())  # what it repeats
            fresh = [part for part in fresh if shards.in_range(*part)]
            if not fresh:
                done()
                return
            keys, values = _within(shards, fresh, lo, keys, values)
        aggregator = self._aggregators.get(message.table)
        part = Part(lo, hi, keys, values, message.cut, done, dropped, source, message.rule)
        try:
            if aggregator is not None:
                aggregator.add(identity, step, part)
                return
            self._apply(message.table, message.cut, lo, hi, keys, values, message.rule, step, {identity: part})
        except Error as problem:
            done(problem)
            return
        shards.clock.advance(identity, lo, hi, step)
        applied = Applied(lo, hi, keys, [(identity, lo, hi, step)], whole_range=False)
        self._replication.changed(message.table, applied, done)

    def _apply(
        self,
        table: int,
        cut: int,
        lo: int,
        hi: int,
        keys: Array | None,
        values: Updates,
        rule: Mapping[str, float],
        step: int,
        parts: dict[int, Part],
    ) -> None:
        self._replication.make_way_for_push(table, lo, hi, keys)
        self._cut.push(table, cut, parts, lo, hi, keys, values, rule)
        watched = self._tracing.watch(table, lo, hi, keys) if self._tracing.keys else None
        self.tables[table].apply(lo, hi, keys, values, rule)
        if watched is not None:
            self._tracing.pushed(watched, step, parts)

    def _aggregated(self, table: int, shards: Shards) -> WhenSummed:
        """What follows the sum of a step: the clocks of all workers go on, and the copies learn of both."""

        def applied(step: int, lo: int, hi: int, keys: Array | None, then: Then) -> None:
            steps = [(identity, lo, hi, step) for identity in self._aggregators[table].workers]
            for entry in steps:
                shards.clock.advance(*entry)
            self._replication.changed(table, Applied(lo, hi, keys, steps, whole_range=True), then)

        return applied

    # --- pull from another node -------------------------------------------------------------------------------------

    def _pull(self, source: int, message: Pull) -> None:
        shards = self.tables[message.table]
        spec = shards.spec

        def answer(keys: Array) -> None:
            values = np.zeros((keys.size, spec.width), spec.dtype)
            shards.pull(keys, values)
            flags = EMPTY
            if message.above is not None:
                bits = np.packbits(shards.above(keys, *message.above))
                flags = np.frombuffer(zlib.compress(bits.tobytes()), np.uint8)
            self._answers.plain += flags.nbytes
            if message.coded is None:
                self._answers.plain += values.nbytes
                parts, coded = [values.reshape(-1).view(np.uint8)], None
            else:
                wire = self._incoming.chain(source, message.table, "pull").encode(keys, values)
                assert not isinstance(wire.keys, range)
                parts, coded = [wire.keys, wire.values], Coded(wire.keys.nbytes, wire.values.nbytes, wire.notes)
            before = sum(part.nbytes for part in parts)

            def reply(slot: int) -> PullReply:
                return PullReply(message.time, keys.size, slot, slot + before - parts[-1].nbytes, coded, flags.nbytes)

            left = self._answers.leave(source, message.time, [*parts, flags], reply)
            if coded is not None and not left:
                self._incoming.chain(source, message.table, "pull").forget()

        def run() -> None:
            self._incoming.request(source, message, answer)

        self._received.take(source, message.time, message.after, run, (message.table, source), queued=False)

    def _pull_scan(self, source: int, message: PullScan) -> None:
        def run() -> None:
            keys, values = self.tables[message.table].scan(message.lo, message.hi)

            self._answers.plain += keys.nbytes + values.nbytes

            def reply(slot: int) -> PullReply:
                return PullReply(message.time, keys.size, slot, slot + keys.nbytes, None, 0)

            self._answers.leave(source, message.time, [keys, values], reply)

        self._received.take(source, message.time, message.after, run, (message.table, source), queued=False)

    # --- the course of the job --------------------------------------------------------------------------------------

    def _measure(self, source: int, message: Measure) -> None:
        nonzeros = {table.spec.name: table.nonzeros() for table in self.tables}
        self._line.tell(Measured(message.epoch, nonzeros, self._traffic()))

    def _report(self) -> bool:
        share = self._meter.reading()
        if share is not None and self.tables:
            load = Load(share, self._pushes, self._fabric.space.used, self._traffic())
            self._line.tell(load)
        return False

    def _traffic(self) -> Traffic:
        return Traffic.total([Traffic(self._answers.plain, self._answers.plain), self._incoming.traffic()])
