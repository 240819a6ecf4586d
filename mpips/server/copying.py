"""Copies made in the background, in the stages of Li et al. 2014, section 4.5: first a shard as it is, while it goes on
being pushed to; then, from time to time, the rows that have changed since, as they have become; and when nothing is
applied for a moment, the last of them and what the clocks say. Until then a copy does not count, and no push waits for
it.
"""

from collections.abc import Callable

import numpy as np

from mpips.fabric import Fabric
from mpips.messages import Change, ShardsWanted
from mpips.server.copies import NOBODY, Copies
from mpips.server.outgoing import NO_VIEW, Changed, Kind, Outgoing, Sent
from mpips.server.rows import Array, Rows, size_of
from mpips.server.shards import Shards
from mpips.tasks.countdown import Countdown, Then, nothing
from mpips.views.view import View

UNDER_WAY = 2  # whole shards, and messages of changed rows, that are sent and not taken, at once
UNDER_WAY_AT_REST = 8
EVERY = 0.2  # seconds between two looks at what has changed
MESSAGE = 1 << 20  # bytes of changed rows that go in one message


class Copying:
    """One for each server.

    Parameters
    ----------
    fabric, tables, outgoing : this server's.
    share : of this server's time, in a view, for what it sends here before it rests.

    Attributes
    ----------
    active : whether any copy is on its way in this view.
    resting : whether nothing more is applied in this view, so that what is stored here goes on at once.
    copied : bytes that this server has sent to copies on their way, in all views.
    """

    def __init__(
        self, fabric: Fabric, tables: list[Copies], outgoing: Outgoing, share: Callable[[View], float]
    ) -> None:
        self.resting = False
        self.copied = 0
        self._fabric = fabric
        self._tables = tables
        self._outgoing = outgoing
        self._share_in = share
        self._share = 1.0
        self.active = False
        self._quiet_until = 0.0
        self._rows_due = 0.0
        self._turns: list[Callable[[int], bool]] = [self._send_whole, self._send_rows]
        self._rested: Then | None = None
        fabric.background.append(self._step)

    def viewed(self, view: View) -> None:
        """The places of a view have been taken."""
        self.resting, self._rested = False, None
        self._share = self._share_in(view)
        self.active = any(bool((copies.coming != NOBODY).any()) for copies in self._tables)

    # --- to the server after this one -------------------------------------------------------------------------------

    def wanted(self, source: int, message: ShardsWanted) -> None:
        """The server after this one asks for copies."""
        for table, shard, number in message.wanted:
            copies = self._tables[table]
            if copies.coming[shard] == source:
                copies.behind.want(shard, number)

    def drain(self, then: Then) -> None:
        """Nothing more is applied in this view: call `then` when all copies have all."""
        self.resting, self._rested = True, then

    def follow(self, message: Change, rows: Rows, then: Then) -> None:
        """Rows of a change have been stored here: note it for the copies on their way, or send them at once while this
        server rests; then do what is to follow.
        """
        copies = self._tables[message.table]
        behind = copies.behind
        if not behind.any_begun:
            then()
        elif not self.resting:
            behind.changed(rows.shards, rows.starts, None if rows.are_runs else rows.keys)
            then()
        else:
            to = np.where(behind.begun[rows.shards], copies.coming[rows.shards], NOBODY)
            where = message.table, copies.shards.spec
            self.copied += self._outgoing.send_each(to, where, message.applied, "later", rows, message.steps, then)

    def _send_one(self, table: int, shard: int, kind: Kind, rows: Rows, then: Then) -> None:
        """Send a shard, or say that the other's copy is up to date."""
        copies = self._tables[table]
        self.copied += rows.nbytes
        where = int(copies.coming[shard]), (table, copies.shards.spec)
        self._outgoing.send(*where, NO_VIEW, kind, rows, [], then)

    def _step(self) -> bool:
        """Send what copies lack, as often as the share of time allows; at rest all of it."""
        if not self.active and self._rested is None:
            return False
        if not any(copies.behind.lacks for copies in self._tables):
            return self._is_at_rest()
        began = self._fabric.now()
        if began < self._quiet_until and not self.resting:
            return False
        under_way = sum(sent.kind != "rows" for sent in self._outgoing.sent.values())
        if under_way >= (UNDER_WAY_AT_REST if self.resting else UNDER_WAY):
            return False
        moved = any(self._take_turns(send) for send in tuple(self._turns))
        self._quiet_until = began + (self._fabric.now() - began) / self._share
        return moved

    def _take_turns(self, send: Callable[[int], bool]) -> bool:
        """Send something of one sort of any table, if there is any; the other sort has its turn next."""
        if not any(send(table) for table in range(len(self._tables))):
            return False
        self._turns.remove(send)
        self._turns.append(send)
        return True

    def _is_at_rest(self) -> bool:
        if self._rested is None:
            return False
        then, self._rested = self._rested, None
        self._outgoing.when_taken(lambda sent: True, lambda: self._send_clocks(then))
        return True

    def _send_rows(self, table: int) -> bool:
        """Send rows that have changed since their shards were sent; False if there are none, or not yet."""
        copies = self._tables[table]
        shards, behind = copies.shards, copies.behind
        now = self._fabric.now()
        if not behind.lacks_rows or (now < self._rows_due and not self.resting):
            return False
        touched, starts, keys = behind.take(max(1, MESSAGE // size_of(shards.spec, 0, 1, runs=False)))
        if not behind.lacks_rows:
            self._rows_due = now + EVERY
        to = copies.coming[touched]
        for successor in sorted(set(to.tolist())):
            self.copied += self._outgoing.send_keys(
                successor, table, NO_VIEW, "later", shards, Changed(keys, touched, starts, to), [], nothing
            )
        return True

    def _send_whole(self, table: int) -> bool:
        """Send the next shard whole, or say that the other's copy is up to date; False if none is here."""
        copies = self._tables[table]
        shards, whole = copies.shards, copies.behind.whole
        shard = next((shard for shard in whole if shard in shards.held and not copies.missing[shard]), None)
        if shard is None:
            return False
        same = whole.pop(shard) == shards.numbers[shard]
        rows = none_of(shards, shard) if same else all_of(shards, shard)
        self._send_one(table, shard, "same" if same else "whole", rows, nothing)
        copies.behind.sent(shard)
        return True

    def _send_clocks(self, then: Then) -> None:
        """What is applied to the shards that are on their way: it is all there."""
        countdown = Countdown(then)
        for table, copies in enumerate(self._tables):
            for path in {copies.paths[shard] for shard in np.flatnonzero(copies.behind.begun).tolist()}:
                self._send_clock(table, path, countdown)
        countdown.done()

    def _send_clock(self, table: int, path: tuple[int, ...], countdown: Countdown) -> None:
        """What is applied to the shards on a path, to all servers that are getting copies of some of them."""
        copies = self._tables[table]
        mine = [shard for shard in np.flatnonzero(copies.behind.begun).tolist() if copies.paths[shard] == path]
        entries = copies.clock(path).entries()
        words = np.array([len(path), *path, *(number for entry in entries for number in entry)], np.int64)
        for successor in sorted({int(copies.coming[shard]) for shard in mine}):
            blob, slot = self._outgoing.room(words.nbytes)
            blob[:] = words.view(np.uint8)
            shape, then = (0, len(entries), False), countdown.one_more()
            self._outgoing.post(Sent(successor, table, NO_VIEW, "clock", shape, blob, slot, [], then))

    # --- from the server before this one ----------------------------------------------------------------------------

    def copy(self, source: int, message: Change, rows: Rows, then: Then) -> None:
        """A whole copy has come that this server has asked for, or that has changed altogether since; or it is told
        that its own is up to date. Then do what is to follow.
        """
        copies, shard = self._tables[message.table], int(rows.shards[0])
        shards = copies.shards
        later = shard in shards.held and rows.numbers[0] > shards.numbers[shard]
        if not copies.accepts(shard, source, message.view) or not (copies.missing[shard] or later):
            then()
            return
        if message.kind == "whole":
            if shard in shards.held:
                shards.clear_shard(shard)
            else:
                shards.hold([shard])
            write(shards, rows)
            shards.numbers[shard] = rows.numbers[0]
        copies.missing[shard] = False
        if self.resting and copies.behind.begun[shard]:
            self._send_one(message.table, shard, "whole", all_of(shards, shard), then)
        else:
            copies.behind.again([shard])
            then()

    def clock(self, source: int, message: Change, blob: Array, then: Then) -> None:
        """The server before this one says what is applied to the shards that come from it on one of its paths."""
        if message.view != self._outgoing.view:
            then()
            return
        words = blob.view(np.int64)
        end = 1 + int(words[0])
        path = (*words[1:end].tolist(), source)
        copies, countdown = self._tables[message.table], Countdown(then)
        entries = [(identity, lo, hi, step) for identity, lo, hi, step in words[end:].reshape(-1, 4).tolist()]
        copies.clock(path).assign(0, copies.shards.spec.positions, entries)
        if self.resting:
            self._send_clock(message.table, path, countdown)
        countdown.done()


def all_of(shards: Shards, shard: int) -> Rows:
    """All rows of a shard that is here."""
    spec, one = shards.spec, np.array([shard], np.int64)
    if spec.kind == "sparse":
        keys, values, state = shards.rows(shard)
        starts = np.array([0, keys.size], np.int64)
        return Rows(one, shards.numbers[one], starts, keys, values, state.reshape(keys.size, spec.width * spec.slots))
    lo, hi = spec.shard_range(shard)
    values, state = shards.run(lo, hi - lo)
    first, starts = np.array([lo], np.uint64), np.array([0, hi - lo], np.int64)
    return Rows(one, shards.numbers[one], starts, first, values, state)


def none_of(shards: Shards, shard: int) -> Rows:
    """No row of a shard, but its number."""
    spec, one = shards.spec, np.array([shard], np.int64)
    values, state = np.empty((0, spec.width), spec.dtype), np.empty((0, spec.width * spec.slots), spec.dtype)
    return Rows(one, shards.numbers[one], np.zeros(2, np.int64), np.empty(0, np.uint64), values, state)


def write(shards: Shards, rows: Rows) -> None:
    """Make rows of shards that are here what another copy has."""
    if not rows.are_runs:
        shards.write_rows(rows.keys, rows.values, rows.state)
        return
    for first, start, end in zip(rows.keys, rows.starts[:-1], rows.starts[1:], strict=True):
        values, state = shards.run(int(first), int(end - start))
        values[:], state[:] = rows.values[start:end], rows.state[start:end]
