"""Chain replication: what the head of a shard has changed goes down its chain, and acknowledgements come back up.

A change tells what rows have become, so a copy stores it and repeats no work. The changes of a shard are numbered by
its head; a copy takes each once and in order, whatever it is sent again. With them go the clock's entries, kept by the
path on which changes come (head and predecessor), since only changes of one path come in order: when a head dies its
successor knows to the push what its copy contains. Source: van Renesse and Schneider 2004; Li et al. 2014, section 4.3.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np

from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.kernels.copies import all_follow, count_for
from mpips.messages import Change, ChangeTaken, ShardsWanted
from mpips.server.clock import Entry
from mpips.server.copies import NOBODY, Copies, Wanted
from mpips.server.incoming import Incoming
from mpips.server.rows import Array, Rows, size_of
from mpips.server.shards import Shards
from mpips.table import TableSpec
from mpips.tasks.countdown import Countdown, Then
from mpips.views.view import View

COPIES_UNDER_WAY = 2  # whole shards sent and not taken, at once
NO_VIEW = 0  # a change that was applied in no view tells only of its own shards how far clocks are

Kind = Literal["rows", "whole", "same"]


class CopyError(Error, RuntimeError):
    """A change that does not follow what a copy has: the copies of a shard are no longer alike."""


class Sent(NamedTuple):
    """A change that the next of a chain has not acknowledged.

    Its rows are packed as a blob, which is at a slot of the arena once there is room; `shape` is the number of shards
    and of rows, and whether they are runs. One that `lingers` has been sent on another way, and is kept only because
    the old successor may still be reading it.
    """

    successor: int
    table: int
    applied: int
    kind: Kind
    shape: tuple[int, int, bool]
    blob: Array
    slot: int | None
    steps: list[Entry]
    then: Then
    lingers: bool = False

    def rows(self, spec: TableSpec) -> Rows:
        """What has changed."""
        return Rows.unpack(self.blob, spec, *self.shape)


class Replication:
    """One for each server.

    Parameters
    ----------
    fabric, incoming : this server's.
    share : of this server's time, for sending whole copies.
    whole : called with the number of a view, when every copy that it has this server make is here, and with the bytes
        of copies, and of changes to copies on their way, that have come so far.
    """

    def __init__(self, fabric: Fabric, incoming: Incoming, share: float, whole: Callable[[int, int], None]) -> None:
        self.tables: list[Copies] = []
        self._fabric = fabric
        self._incoming = incoming
        self._share = share
        self._whole = whole
        self._view: View | None = None
        self._numbers = 0
        self._copied = 0
        self._sent: dict[int, Sent] = {}
        self._roomless: deque[int] = deque()
        self._missing: set[tuple[int, int]] = set()
        self._wanted: deque[Wanted] = deque()
        self._resting_until = 0.0
        self._replicates = False
        fabric.background.append(self._step)

    # --- what the head has changed ----------------------------------------------------------------------------------

    def changed(
        self,
        table: int,
        lo: int,
        hi: int,
        keys: Array | None,
        steps: list[Entry],
        then: Then,
        whole_range: bool = False,
    ) -> None:
        """A push to ``[lo, hi)``, of keys (n,) grouped by shard or of all rows, is applied here; `then` is for when
        every copy has it. With `whole_range` also the clocks of shards none of whose rows have changed.
        """
        if not self._replicates or self._view is None:
            then()
            return
        copies = self.tables[table]
        touched, starts = copies.shards.touched(lo, hi, keys, whole_range)
        numbers = copies.shards.numbers
        numbers[touched] += 1
        after = copies.after[touched]
        countdown = Countdown(then)
        for successor in sorted(set(after.tolist()) - {NOBODY}):
            if keys is None:
                chosen = np.flatnonzero(after == successor)
                firsts = np.maximum(lo, touched[chosen] << copies.shards.spec.shard_bits)
                rows = self._runs(copies.shards, touched[chosen], firsts, starts[chosen + 1] - starts[chosen])
                self._send(successor, table, self._view.number, "rows", rows, steps, countdown.one_more())
                continue
            count, n = counts = count_for(after, starts, successor)
            blob, slot = self._room(size_of(copies.shards.spec, count, n, runs=False))
            copies.shards.pack(keys, touched, starts, after, successor, counts, blob)
            shape, number = (count, n, False), self._view.number
            self._post(Sent(successor, table, number, "rows", shape, blob, slot, steps, countdown.one_more()))
        countdown.done()

    @staticmethod
    def _runs(shards: Shards, touched: Array, firsts: Array, sizes: Array) -> Rows:
        """Neighbouring rows of some shards: of each so many, from its first."""
        parts = [shards.run(first, size) for first, size in zip(firsts.tolist(), sizes.tolist(), strict=True)]
        values, state = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
        return Rows(touched, shards.numbers[touched], starts, firsts.astype(np.uint64), values, state)

    def rewritten(self, table: int, concerned: Iterable[int], steps: list[Entry], then: Then) -> None:
        """A function has written to whole shards here; `then` is for when every copy has them."""
        copies = self.tables[table]
        countdown = Countdown(then)
        for shard in concerned if self._replicates else ():
            copies.shards.numbers[shard] += 1
            if copies.after[shard] != NOBODY:
                self._down(table, NO_VIEW, self._all_of(copies.shards, shard), steps, countdown.one_more())
        countdown.done()

    @staticmethod
    def _all_of(shards: Shards, shard: int) -> Rows:
        spec, one = shards.spec, np.array([shard], np.int64)
        if spec.kind == "sparse":
            keys, values, state = shards.rows(shard)
            starts = np.array([0, keys.size], np.int64)
            state = state.reshape(keys.size, spec.width * spec.slots)
            return Rows(one, shards.numbers[one], starts, keys, values, state)
        lo, hi = spec.shard_range(shard)
        values, state = shards.run(lo, hi - lo)
        first, starts = np.array([lo], np.uint64), np.array([0, hi - lo], np.int64)
        return Rows(one, shards.numbers[one], starts, first, values, state)

    def when_all_is_taken(self, then: Then) -> None:
        """Call `then` when all that has been sent down chains so far is acknowledged."""
        self._when_taken(lambda sent: True, then)

    def _when_taken(self, concerns: Callable[[Sent], bool], then: Then) -> None:
        countdown = Countdown(then)
        for number, sent in self._sent.items():
            if concerns(sent):
                self._sent[number] = sent._replace(then=_both(sent.then, countdown.one_more()))
        countdown.done()

    def _down(self, table: int, applied: int, rows: Rows, steps: list[Entry], then: Then) -> None:
        """Send rows to the servers after this one, each its own; those whose chain ends here go nowhere."""
        after = self.tables[table].after[rows.shards]
        successors = set(after.tolist()) - {NOBODY}
        if not successors:
            then()
            return
        countdown = Countdown(then)
        for successor in sorted(successors):
            part = rows.only(after == successor)
            self._send(successor, table, applied, "rows", part, steps, countdown.one_more())
        countdown.done()

    def _send(
        self, successor: int, table: int, applied: int, kind: Kind, rows: Rows, steps: list[Entry], then: Then
    ) -> None:
        """Send rows, copied into the own arena."""
        shape = rows.shards.size, rows.values.shape[0], rows.are_runs
        blob, slot = self._room(size_of(self.tables[table].shards.spec, *shape))
        rows.pack(blob)
        self._post(Sent(successor, table, applied, kind, shape, blob, slot, steps, then))

    def _room(self, size: int) -> tuple[Array, int | None]:
        """Bytes of the own arena and their offset; or bytes elsewhere, until there is room."""
        if not self._roomless:
            try:
                slot = self._fabric.space.allocate(size)
            except ArenaFull:
                pass
            else:
                return self._fabric.arena[slot : slot + size], slot
        return np.empty(size, np.uint8), None

    def _post(self, sent: Sent) -> None:
        self._numbers += 1
        self._sent[self._numbers] = sent
        if sent.slot is None:
            self._roomless.append(self._numbers)
        else:
            self._tell(self._numbers)

    def _tell(self, number: int) -> None:
        """Tell the successor of a change that lies in the arena."""
        sent = self._sent[number]
        assert self._view is not None
        assert sent.slot is not None
        message = Change(
            self._view.number, number, sent.table, sent.applied, sent.kind,
            *sent.shape, sent.slot, sent.blob.size, sent.steps,
        )  # fmt: skip
        self._fabric.send(sent.successor, message)

    def _lay(self, number: int) -> bool:
        """Lay a change that had no room into the arena; False without room for it."""
        sent = self._sent[number]
        try:
            slot = self._fabric.space.allocate(sent.blob.size)
        except ArenaFull:
            return False
        blob = self._fabric.arena[slot : slot + sent.blob.size]
        blob[:] = sent.blob
        self._sent[number] = sent._replace(blob=blob, slot=slot)
        self._tell(number)
        return True

    def taken(self, source: int, message: ChangeTaken) -> None:
        """The server after this one has a change."""
        sent = self._sent.get(message.number)
        if sent is not None and sent.successor == source:
            self._done(message.number)

    def _done(self, number: int) -> None:
        sent = self._sent.pop(number)
        if sent.slot is not None:
            self._fabric.space.free(sent.slot)
        sent.then()
        if sent.kind != "rows":
            self._tell_when_whole()

    # --- what comes down ----------------------------------------------------------------------------------------------

    def change(self, source: int, message: Change) -> None:
        """A change comes from the server before this one."""

        def store(read: list[Array]) -> None:
            spec = self.tables[message.table].shards.spec
            rows = Rows.unpack(read[0], spec, message.shards, message.rows, message.runs)
            if message.kind == "rows":
                self._store(source, message, rows)
            else:
                self._begin_copy(source, message, rows)

        self._incoming.read(source, [(message.offset, message.size, "uint8")], store)

    def _store(self, source: int, message: Change, rows: Rows) -> None:
        copies = self.tables[message.table]
        shards = copies.shards
        if all_follow(rows.shards, rows.numbers, shards.numbers, copies.before, copies.since, source, message.view):
            fresh, known = rows, rows.shards[:0]
        else:
            fresh, known = self._sorted_out(source, message, rows)
        if fresh.shards.size:
            _write(shards, fresh)
            shards.numbers[fresh.shards] = fresh.numbers
            self._advance(copies, fresh, message)
            if copies.any_is_new:
                self._copied += fresh.only(copies.is_new[fresh.shards]).nbytes

        countdown = Countdown(lambda: self._acknowledge(source, message))
        if fresh.shards.size:
            self._down(message.table, message.applied, fresh, message.steps, countdown.one_more())
        if known.size:  # it was here before, but may be on its way further down
            self._when_taken(
                lambda sent: (
                    sent.kind == "rows"
                    and sent.table == message.table
                    and not sent.lingers
                    and bool(np.isin(known, sent.rows(shards.spec).shards).any())
                ),
                countdown.one_more(),
            )
        countdown.done()

    def _sorted_out(self, source: int, message: Change, rows: Rows) -> tuple[Rows, Array]:
        """Of the rows of a change those that are new here, and the shards that had it before."""
        copies = self.tables[message.table]
        shards = copies.shards
        mine = shards.numbers[rows.shards]
        accepted = copies.accepts(rows.shards, source, message.view)
        new = accepted & (rows.numbers > mine)
        if (rows.numbers[new] != mine[new] + 1).any():
            raise CopyError(
                f'server {self._fabric.rank}: a change of table "{shards.spec.name}" from server {source} does not '
                f"follow what is here: {rows.numbers[new].tolist()} after {mine[new].tolist()}"
            )
        # on a way that is none any more nobody waits for the acknowledgement
        return rows.only(new), rows.shards[accepted & ~new]

    def _advance(self, copies: Copies, rows: Rows, message: Change) -> None:
        """The clock goes on: of all shards of the path; or, if that may have had others when the head applied the
        pushes, of those that the change tells of.
        """
        assert self._view is not None
        if message.applied == self._view.number:
            for path in dict.fromkeys(copies.paths[shard] for shard in rows.shards.tolist()):
                for entry in message.steps:
                    copies.clock(path).advance(*entry)
            return
        for shard in rows.shards.tolist():
            first, last = copies.positions(shard)
            for identity, lo, hi, step in message.steps:
                if lo < last and hi > first:
                    copies.clock(copies.paths[shard]).advance(identity, max(lo, first), min(hi, last), step)

    def _begin_copy(self, source: int, message: Change, rows: Rows) -> None:
        """A whole copy has come that this server has asked for, or that the one before it has got anew itself."""
        copies, shard = self.tables[message.table], int(rows.shards[0])
        shards, key = copies.shards, (message.table, int(rows.shards[0]))
        later = shard in shards.held and rows.numbers[0] > shards.numbers[shard]
        if copies.accepts(shard, source, message.view) and (key in self._missing or later):
            self._copied += rows.nbytes
            if message.kind == "whole":
                if shard in shards.held:
                    shards.clear_shard(shard)
                else:
                    shards.hold([shard])
                _write(shards, rows)
                shards.numbers[shard] = rows.numbers[0]
            lo, hi = copies.positions(shard)
            copies.clock(copies.paths[shard]).assign(lo, hi, message.steps)
            if message.kind == "whole" and copies.after[shard] != NOBODY:
                rows = self._all_of(shards, shard)
                self._send(int(copies.after[shard]), message.table, NO_VIEW, "whole", rows, message.steps, _nothing)
            self._missing.discard(key)
            self._tell_when_whole()
        self._acknowledge(source, message)

    def _acknowledge(self, source: int, message: Change) -> None:
        """Tell the server before this one that all has been done for a change that can be done in this view: the copy
        after this one may be of another chain now, and the one before must know that before it relies on it.
        """
        assert self._view is not None
        self._fabric.send(source, ChangeTaken(self._view.number, message.number))

    def _tell_when_whole(self) -> None:
        assert self._view is not None
        passing_on = any(sent.kind != "rows" for sent in self._sent.values())
        if self._view.ring != self._view.target and not self._missing and not passing_on:
            self._whole(self._view.number, self._copied)

    # --- whole copies -------------------------------------------------------------------------------------------------

    def wanted(self, source: int, message: ShardsWanted) -> None:
        """The server after this one asks for copies."""
        self._wanted.extend(Wanted(source, *each) for each in message.wanted)

    def _step(self) -> bool:
        """Send what there is room for again, and the next whole copy, as often as the share of time allows."""
        moved = False
        while self._roomless:
            if self._roomless[0] in self._sent and not self._lay(self._roomless[0]):
                break
            self._roomless.popleft()
            moved = True
        if not self._wanted or self._fabric.now() < self._resting_until:
            return moved
        if sum(sent.kind != "rows" for sent in self._sent.values()) >= COPIES_UNDER_WAY:
            return moved
        began = self._fabric.now()
        for _ in range(len(self._wanted)):
            wanted = self._wanted.popleft()
            copies = self.tables[wanted.table]
            if copies.coming[wanted.shard] != wanted.server:
                continue  # of another view
            if wanted.shard not in copies.shards.held or (wanted.table, wanted.shard) in self._missing:
                self._wanted.append(wanted)  # it is on its way here, too
                continue
            self._copy(copies, wanted)
            moved = True
            break
        took = self._fabric.now() - began
        self._resting_until = began + took / self._share
        return moved

    def _copy(self, copies: Copies, wanted: Wanted) -> None:
        shards, shard = copies.shards, wanted.shard
        steps = copies.clock(copies.paths[shard]).entries(*copies.positions(shard))
        if wanted.number == shards.numbers[shard]:
            self._send(wanted.server, wanted.table, NO_VIEW, "same", _none_of(shards, shard), steps, _nothing)
        else:
            self._send(wanted.server, wanted.table, NO_VIEW, "whole", self._all_of(shards, shard), steps, _nothing)
        copies.after[shard] = wanted.server
        copies.sent.add((shard, wanted.server))

    # --- views --------------------------------------------------------------------------------------------------------

    def viewed(self, view: View, taken: Then) -> None:
        """Take the places of a view, and call `taken`; then send what the servers that are after this one now may lack,
        and ask the one before for copies.
        """
        self._view = view
        me, wanted = self._fabric.rank, []
        led = [list(copies.shards.led) for copies in self.tables]
        for table, copies in enumerate(self.tables):
            wanted += [each._replace(table=table) for each in copies.viewed(view, me)]
        replicated = self._replicates
        self._replicates = any(copies.have_successors for copies in self.tables)
        if self._replicates and not replicated:
            for copies, alone in zip(self.tables, led, strict=True):
                copies.shards.numbers[alone] += 1  # nobody has a copy of what was changed meanwhile
        self._missing = {
            (table, shard) for table, shard in self._missing if self.tables[table].before[shard] != NOBODY
        } | {(each.table, each.shard) for each in wanted}
        self._wanted = deque(each for each in self._wanted if each.server not in view.lost)
        taken()
        self._send_again()
        for server in sorted({each.server for each in wanted}):
            asked = [(each.table, each.shard, each.number) for each in wanted if each.server == server]
            self._fabric.send(server, ShardsWanted(view.number, asked))
        self._tell_when_whole()

    def _send_again(self) -> None:
        """What was sent to a server that is no longer the one after this, and not acknowledged, goes to the new one.

        It lies in the arena until the other has acknowledged it all the same, since that may just be reading it.
        """
        assert self._view is not None
        for number in list(self._sent):
            sent = self._sent.get(number)  # as it is now: what ends here may have something else wait for it
            if sent is None:
                continue
            rows = sent.rows(self.tables[sent.table].shards.spec)
            after = self.tables[sent.table].after[rows.shards]
            stays = after == sent.successor
            if stays.all():
                continue
            countdown, lingers = Countdown(sent.then), not stays.any()
            then = _nothing if lingers else countdown.one_more()
            self._sent[number] = sent._replace(then=then, lingers=lingers)
            if sent.kind == "rows":
                self._down(sent.table, sent.applied, rows.only(~stays), sent.steps, countdown.one_more())
            countdown.done()
            if lingers and (sent.successor in self._view.lost or sent.slot is None) and number in self._sent:
                self._done(number)

    def release(self) -> None:
        """Give back the shards that this server has no part in."""
        for copies in self.tables:
            idle = (copies.before == NOBODY) & (copies.after == NOBODY) & (copies.coming == NOBODY)
            led = set(copies.shards.led)
            for shard in [shard for shard in copies.shards.held if idle[shard] and shard not in led]:
                copies.shards.give_back(shard)


def _write(shards: Shards, rows: Rows) -> None:
    if not rows.are_runs:
        shards.write_rows(rows.keys, rows.values, rows.state)
        return
    for first, start, end in zip(rows.keys, rows.starts[:-1], rows.starts[1:], strict=True):
        values, state = shards.run(int(first), int(end - start))
        values[:], state[:] = rows.values[start:end], rows.state[start:end]


def _none_of(shards: Shards, shard: int) -> Rows:
    spec, one = shards.spec, np.array([shard], np.int64)
    values, state = np.empty((0, spec.width), spec.dtype), np.empty((0, spec.width * spec.slots), spec.dtype)
    return Rows(one, shards.numbers[one], np.zeros(2, np.int64), np.empty(0, np.uint64), values, state)


def _both(first: Then, second: Then) -> Then:
    def then() -> None:
        first()
        second()

    return then


def _nothing() -> None:
    pass
