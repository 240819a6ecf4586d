"""Shard functions that workers call: run on the shards that this server leads, and once only where they write."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.functions import pack
from mpips.messages import CallShards, ShardsReply
from mpips.server import functions
from mpips.server.answers import Answers
from mpips.server.clock import Entry
from mpips.server.cut import CutHere
from mpips.server.gate import Gate
from mpips.server.incoming import Incoming
from mpips.server.replication import Replication
from mpips.server.shards import Shards
from mpips.server.tracing import Tracing
from mpips.tasks import Received
from mpips.tasks.countdown import Countdown

Array = np.ndarray[Any, Any]


class Called:
    """One for each server.

    Parameters
    ----------
    tables : this server's shards of each table; there may be none yet.
    fabric, received, incoming, replication, cut, gate, answers, tracing : this server's.
    """

    def __init__(
        self,
        tables: Sequence[Shards],
        fabric: Fabric,
        received: Received,
        incoming: Incoming,
        replication: Replication,
        cut: CutHere,
        gate: Gate,
        answers: Answers,
        tracing: Tracing,
    ) -> None:
        self._tables = tables
        self._fabric = fabric
        self._received = received
        self._incoming = incoming
        self._replication = replication
        self._cut = cut
        self._gate = gate
        self._answers = answers
        self._tracing = tracing

    def call(self, source: int, message: CallShards) -> None:
        """Take a call in: its argument is read, then the function runs, in the order of pushes if it writes."""

        def read() -> None:
            if not self._gate.is_outdated(source, message):
                argument = (message.argument, message.numbers, "float64")
                self._incoming.read(source, [argument], lambda read: self._run(source, message, read[0]))

        lane, writes = (message.table, source), message.step > 0
        self._received.take(source, message.time, message.after, read, lane, message.part, queued=writes)

    def _run(self, source: int, message: CallShards, argument: Array) -> None:
        """Run a function on the shards that are led: one that writes on those where this call is not a repetition."""
        if self._gate.holds_up(lambda: self._run(source, message, argument)):
            return
        if self._gate.is_outdated(source, message):
            return
        shards = self._tables[message.table]
        dense, steps, repeats = shards.spec.kind == "dense", list[Entry](), False
        concerned = shards.in_range(message.lo, message.hi) if dense else list(shards.led)
        if message.step:
            new, steps = _not_done(shards, concerned, message)
            repeats, concerned = len(new) < len(concerned), new
            self._replication.make_way(message.table)
        looked_at = (message.table, message.lo, message.hi, None)
        watched = self._tracing.watch(*looked_at) if message.step and self._tracing.keys else None

        def run(shards: Shards, concerned: list[int]) -> Any:
            return functions.run(shards, concerned, message.function, message.lo, message.hi, argument)

        try:
            if message.step:
                self._cut.rewrite(message.table, message.cut, message.identity, concerned, run)
            reply = run(shards, concerned)
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
                self._answers.plain += data.nbytes
            self._answers.leave(source, message.time, [data], place, message.part)

        copied = Countdown(leave)
        if repeats:
            self._replication.when_all_is_taken(copied.one_more())
        if watched is not None:
            self._tracing.called(watched, message.step, message.identity, source, message.function)
        if message.step:
            for entry in steps:
                shards.clock.advance(*entry)
            self._replication.rewritten(message.table, concerned, steps, copied.one_more())
        copied.done()


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
