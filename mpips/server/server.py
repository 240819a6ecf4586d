"""The server's role: messages in, shards changed or read, replies out."""

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mpips.checkpoint import CheckpointError, Generation
from mpips.checkpoint.write import ServerFile
from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.fabric.meter import Meter
from mpips.functions import pack
from mpips.kernels.checksum import fletcher32
from mpips.kernels.partition import positions
from mpips.messages import (
    CallShards,
    Change,
    ChangeTaken,
    Checkpoint,
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
    Saved,
    ShardsReply,
    ShardsWanted,
    TablesReady,
    Taken,
    Traffic,
)
from mpips.rule import RuleError
from mpips.scheduler.chains import chains_of
from mpips.scheduler.line import Line
from mpips.scheduler.view import MAIN, View
from mpips.server import functions
from mpips.server.aggregate import Aggregate, Part
from mpips.server.clock import Entry
from mpips.server.copies import Copies
from mpips.server.incoming import Incoming
from mpips.server.replication import Replication
from mpips.server.shards import Shards
from mpips.table import TableSpec, header_offsets
from mpips.tasks import Received

Array = np.ndarray[Any, Any]
EMPTY = np.empty(0, np.uint8)


ViewedMessage = Push | Pull | PullScan | CallShards | Change | ChangeTaken | ShardsWanted


Applied = Callable[[int, int, int, Array | None, Callable[[], None]], None]


def _within(
    shards: Shards, ranges: list[tuple[int, int]], lo: int, keys: Array | None, values: Array
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
    run : the run folder, where checkpoints go; None for a job without any.
    threads : kernels that may run at once.
    copy_share : share of its time that it sends copies of whole shards in.
    """

    def __init__(
        self,
        fabric: Fabric,
        view: View,
        line: Line,
        received: Received,
        run: Path | None,
        threads: int,
        copy_share: float,
    ) -> None:
        self.tables: list[Shards] = []
        self._aggregators: dict[int, Aggregate] = {}
        self._received = received
        self._fabric = fabric
        self._view = view
        self._line = line
        self._run = run
        self._threads = threads
        self._incoming = Incoming(fabric, received.refuse)
        self._replication = Replication(
            fabric, self._incoming, copy_share, lambda view, copied: line.tell(CopiesWhole(view, copied))
        )
        self._since: list[int] = []  # by table, the view since which the shards that are led are the same
        self._early: list[tuple[int, ViewedMessage]] = []
        self._draining: int | None = None  # the view that is to be over
        self._held_up: list[Callable[[], None]] = []
        self._plain = 0  # bytes left for other nodes without filters
        self._answers: dict[tuple[int, int, int], int] = {}  # by source, time and part
        self._saving: Iterator[bool] | None = None
        self._pushes = 0
        self._meter = Meter(fabric)
        fabric.on(CreateTables, self._create)
        self._handlers: dict[type[Message], Callable[[int, Any], None]] = {
            Push: self._push,
            Pull: self._pull,
            PullScan: self._pull_scan,
            CallShards: self._call,
            Change: self._replication.change,
            ChangeTaken: self._replication.taken,
            ShardsWanted: self._replication.wanted,
        }
        for kind in self._handlers:
            fabric.on(kind, self._of_view)
        fabric.on(Drain, self._drain)
        fabric.on(Release, self._release)
        fabric.on(Taken, self._taken)
        fabric.on(Measure, self._measure)
        fabric.on(Checkpoint, self._checkpoint)
        fabric.background += [self._save_step, self._report]

    # --- tables -----------------------------------------------------------------------------------------------------

    def _create(self, source: int, message: CreateTables) -> None:
        error = None
        try:
            if not self.tables:
                self._hold(message.tables)
            if message.restore is not None:
                self._restore(Path(message.restore))
        except CheckpointError as problem:
            error = str(problem)
        except ArenaFull as problem:
            self._line.tell(Failed(f"server {self._fabric.rank} has no room for its tables: {problem}"))
            return
        except RuleError as problem:
            self._line.tell(Failed(str(problem)))
            return
        self._line.tell(TablesReady(error))
        self._go_on()

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
                self._aggregators[table] = Aggregate(spec, identities, shards.apply, self._aggregated(table, shards))
            self.tables.append(shards)
            self._replication.tables.append(Copies(shards))
        self._since = [self._view.number] * len(tables)
        self._replication.viewed(self._view)
        fletcher32(np.zeros(2, np.uint16))  # compiled, or loaded, before the first checkpoint has to wait for it

    def _restore(self, path: Path) -> None:
        for shards in self.tables:
            shards.clear()  # of what a generation that turned out damaged has left
        with Generation(path) as generation:
            for shards in self.tables:
                spec = shards.spec
                saved = generation.tables.get(spec.name)
                if saved is None or (saved.kind, saved.width, saved.dtype, saved.slots) != (
                    spec.kind, spec.width, spec.dtype, spec.slots,
                ) or (spec.kind == "dense" and saved.rows != spec.rows):  # fmt: skip
                    raise CheckpointError(
                        f'{path}: its table "{spec.name}" does not have the shape or rule that the job file asks for'
                    )
                if spec.kind == "sparse":
                    shards.load(generation.sparse(spec.name))
                    continue
                for shard in shards.held:
                    values, state = shards.dense_rows(shard)
                    values[:], state[:] = generation.dense(spec.name, *spec.shard_range(shard))

    # --- views ------------------------------------------------------------------------------------------------------

    def _of_view(self, source: int, message: ViewedMessage) -> None:
        """Handle a message that counts on a view: not before this server has it, and not when its shards are others
        now; then it is sent again.
        """
        if message.view > self._view.number or not self.tables:
            self._early.append((source, message))
        elif isinstance(message, Change | ChangeTaken | ShardsWanted) or message.view >= self._since[message.table]:
            self._handlers[type(message)](source, message)

    def viewed(self, old: View, new: View) -> None:
        """Take the places in chains of a new view."""
        self._view = new
        for rank in set(new.lost) - set(old.lost):
            self._received.forget(rank)
            self._incoming.forget(rank)
            for key in [key for key in self._answers if key[0] == rank]:
                self._fabric.space.free(self._answers.pop(key))
        for rank in set(new.workers) - set(old.workers):
            self._incoming.greet(rank)
        if not self.tables:
            return
        led = [list(shards.led) for shards in self.tables]
        self._replication.viewed(new)
        for table, shards in enumerate(self.tables):
            if shards.led != led[table]:
                self._since[table] = new.number
                self._saving = None  # it would miss shards, or read what is given back; the scheduler begins another
                self._received.leave(table)
                if table in self._aggregators:
                    self._aggregators[table].forget()
        for aggregator in self._aggregators.values():
            aggregator.keep(new.identities[MAIN])
        self._draining = None
        held_up, self._held_up = self._held_up, []
        for run in held_up:
            run()
        self._go_on()

    def _go_on(self) -> None:
        early, self._early = self._early, []
        for source, message in early:
            self._of_view(source, message)

    def _drain(self, source: int, message: Drain) -> None:
        """Apply nothing more before the next view, and say when every copy has what was applied."""
        if message.number != self._view.number:
            return
        self._draining = message.number
        self._replication.when_all_is_taken(lambda: self._drained(message.number))

    def _drained(self, number: int) -> None:
        if self._draining == number:
            self._line.tell(Drained(number))

    def _release(self, source: int, message: Release) -> None:
        if message.number == self._view.number:
            self._replication.release()

    # --- push -------------------------------------------------------------------------------------------------------

    def _push(self, source: int, message: Push) -> None:
        def run() -> None:
            if message.view < self._since[message.table]:
                self._received.drop(source, message.time, message.part)
            elif message.coded is not None and not self._is_new(message):
                self._arrived(source, message, None, EMPTY)  # what a filter has decoded once it must not decode again
            else:
                self._incoming.push(source, message, lambda keys, values: self._arrived(source, message, keys, values))

        lane = message.table, source
        self._received.take(source, message.time, message.after, run, lane, message.part)

    def _is_new(self, message: Push) -> bool:
        clock = self.tables[message.table].clock
        return bool(clock.fresh(message.identity, message.lo, message.hi, message.step))

    def _arrived(self, source: int, message: Push, keys: Array | None, values: Array) -> None:
        """Apply what is not a repetition in a push, or add the push to those of the other workers."""
        if self._draining is not None:
            self._held_up.append(lambda: self._arrived(source, message, keys, values))
            return
        if message.view < self._since[message.table]:
            self._received.drop(source, message.time, message.part)
            return
        lo, hi, identity, step = message.lo, message.hi, message.identity, message.step
        shards = self.tables[message.table]

        def done(problem: Error | None = None) -> None:
            if problem is not None:
                self._received.refuse(source, message.time, str(problem), message.part)
                return
            self._pushes += 1
            self._fabric.send(source, PushReply(message.time, message.part))
            self._received.done(source, message.time, message.part)

        def dropped() -> None:
            self._received.drop(source, message.time, message.part)

        fresh = shards.clock.fresh(identity, lo, hi, step)
        if fresh != [(lo, hi)]:  # of shards that are not led the clock knows only what happened to concern others, too
            fresh = [part for part in fresh if shards.in_range(*part)]
            if not fresh:
                self._replication.when_all_is_taken(done)
                return
            keys, values = _within(shards, fresh, lo, keys, values)
        aggregator = self._aggregators.get(message.table)
        try:
            if aggregator is not None:
                aggregator.add(identity, step, Part(lo, hi, keys, values, done, dropped))
                return
            shards.apply(lo, hi, keys, values)
        except Error as problem:
            done(problem)
            return
        shards.clock.advance(identity, lo, hi, step)
        self._replication.changed(message.table, lo, hi, keys, [(identity, lo, hi, step)], done)

    def _aggregated(self, table: int, shards: Shards) -> Applied:
        """What follows the sum of a step: the clocks of all workers go on, and the copies learn of both."""

        def applied(step: int, lo: int, hi: int, keys: Array | None, then: Callable[[], None]) -> None:
            steps = [(identity, lo, hi, step) for identity in self._aggregators[table].workers]
            for entry in steps:
                shards.clock.advance(*entry)
            self._replication.changed(table, lo, hi, keys, steps, then, whole_range=True)

        return applied

    # --- pull from another node, and functions ----------------------------------------------------------------------

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
            self._plain += flags.nbytes
            if message.coded is None:
                self._plain += values.nbytes
                parts, coded = [values.reshape(-1).view(np.uint8)], None
            else:
                wire = self._incoming.chain(source, message.table, "pull").encode(keys, values)
                assert not isinstance(wire.keys, range)
                parts, coded = [wire.keys, wire.values], Coded(wire.keys.nbytes, wire.values.nbytes, wire.notes)
            before = sum(part.nbytes for part in parts)

            def reply(slot: int) -> PullReply:
                return PullReply(message.time, keys.size, slot, slot + before - parts[-1].nbytes, coded, flags.nbytes)

            left = self._leave(source, message.time, [*parts, flags], reply)
            if coded is not None and not left:
                self._incoming.chain(source, message.table, "pull").forget()

        def run() -> None:
            self._incoming.request(source, message, answer)

        self._received.take(source, message.time, message.after, run, (message.table, source), queued=False)

    def _pull_scan(self, source: int, message: PullScan) -> None:
        def run() -> None:
            keys, values = self.tables[message.table].scan(message.lo, message.hi)

            self._plain += keys.nbytes + values.nbytes

            def reply(slot: int) -> PullReply:
                return PullReply(message.time, keys.size, slot, slot + keys.nbytes, None, 0)

            self._leave(source, message.time, [keys, values], reply)

        self._received.take(source, message.time, message.after, run, (message.table, source), queued=False)

    def _call(self, source: int, message: CallShards) -> None:
        writes = message.step > 0

        def read() -> None:
            if message.view < self._since[message.table]:  # it will be asked again
                self._received.drop(source, message.time, message.part)
                return
            argument = (message.argument, message.numbers, "float64")
            self._incoming.read(source, [argument], lambda read: self._run_function(source, message, read[0]))

        lane = message.table, source
        self._received.take(source, message.time, message.after, read, lane, message.part, queued=writes)

    def _run_function(self, source: int, message: CallShards, argument: Array) -> None:
        """Run a function on the shards that are led: one that writes on those where this call is not a repetition."""
        if self._draining is not None:
            self._held_up.append(lambda: self._run_function(source, message, argument))
            return
        if message.view < self._since[message.table]:
            self._received.drop(source, message.time, message.part)
            return
        shards = self.tables[message.table]
        dense, steps = shards.spec.kind == "dense", list[Entry]()
        concerned = shards.in_range(message.lo, message.hi) if dense else list(shards.led)
        if message.step:
            concerned, steps = self._not_done(shards, concerned, message)
        try:
            reply = functions.run(shards, concerned, message.function, message.lo, message.hi, argument)
            data, dtype, shape = pack(reply)
        except Error as problem:
            reason = str(problem)
            refuse = partial(self._received.refuse, source, message.time, reason, message.part)
            # it may have written before it failed
            self._replication.rewritten(message.table, concerned if message.step else (), [], refuse)
            return

        def place(slot: int) -> ShardsReply:
            return ShardsReply(message.time, message.part, slot, data.nbytes, dtype, list(shape))

        def leave() -> None:
            if self._fabric.place(source) is None:
                self._plain += data.nbytes
            self._leave(source, message.time, [data], place, message.part)

        if message.step:
            for entry in steps:
                shards.clock.advance(*entry)
            self._replication.rewritten(message.table, concerned, steps, leave)
        else:
            leave()

    @staticmethod
    def _not_done(shards: Shards, concerned: list[int], message: CallShards) -> tuple[list[int], list[Entry]]:
        """The shards that a function has not been run on by this call, and what the clock will know then."""
        spec = shards.spec
        lo, hi = 0, spec.positions
        if spec.kind == "dense":
            lo, hi = message.lo, spec.rows if message.hi is None else message.hi
        if lo >= hi:
            return [], []
        fresh = shards.clock.fresh(message.identity, lo, hi, message.step)
        at = {shard: max(lo, spec.shard_range(shard)[0]) if spec.kind == "dense" else shard for shard in concerned}
        new = [shard for shard in concerned if any(start <= at[shard] < end for start, end in fresh)]
        return new, [(message.identity, lo, hi, message.step)]

    def _leave(
        self, source: int, time: int, arrays: list[Array], reply: Callable[[int], Message], part: int = 0
    ) -> bool:
        """Leave an answer in the own arena until it is taken, and say where; without room for it refuse: False."""
        try:
            slot = self._fabric.space.allocate(sum(array.nbytes for array in arrays))
        except Error as problem:
            self._received.refuse(source, time, str(problem), part)
            return False
        at = slot
        for array in arrays:
            self._fabric.arena[at : at + array.nbytes] = array.view(np.uint8).reshape(-1)
            at += array.nbytes
        self._answers[source, time, part] = slot
        self._fabric.send(source, reply(slot))
        self._received.done(source, time, part)
        return True

    def _taken(self, source: int, message: Taken) -> None:
        slot = self._answers.pop((source, message.time, message.part), None)
        if slot is not None:  # an answer that came twice is taken twice
            self._fabric.space.free(slot)

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
        return Traffic.total([Traffic(self._plain, self._plain), self._incoming.traffic()])

    def _checkpoint(self, source: int, message: Checkpoint) -> None:
        assert self._run is not None
        self._saving = self._save(message.generation, self._run)

    def _save_step(self) -> bool:
        if self._saving is None:
            return False
        for wrote in self._saving:
            return wrote
        self._saving = None
        return True

    def _save(self, generation: int, run: Path) -> Iterator[bool]:
        """Write the own shards, one a step, so that pushes are served in between; a step says whether it wrote."""
        error = None
        try:
            file = ServerFile(run, generation, self._fabric.rank)
            for shards in self.tables:
                for shard in list(shards.led):
                    if shards.spec.kind == "dense":
                        file.dense(shards.spec, shard, *shards.dense_rows(shard))
                    else:
                        file.sparse(shards.spec, shard, *shards.rows(shard))
                    yield True
            file.clocks({shards.spec.name: shards.last_pushes() for shards in self.tables})
            done = self._fabric.aside(file.close)
            while not done.done():
                yield False
            done.result()
        except CheckpointError as problem:
            error = str(problem)
        self._line.tell(Saved(generation, error))
