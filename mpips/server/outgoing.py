"""What a server has sent to the next of a chain, which is kept until that one has acknowledged it."""

from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from mpips.fabric import ArenaFull, Fabric
from mpips.kernels.copies import count_for
from mpips.messages import Change, ChangeTaken
from mpips.server.clock import Entry
from mpips.server.rows import Array, Rows, size_of
from mpips.server.shards import Shards
from mpips.table import TableSpec
from mpips.tasks.countdown import Countdown, Then

NO_VIEW = 0  # a change that was applied in no view tells only of its own shards how far clocks are

Kind = Literal["rows", "later", "whole", "same", "clock"]


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


class Changed(NamedTuple):
    """Rows of some shards: keys (n,) uint64, shards (m,) int64, where the keys of each begin (m + 1,), and the server
    that each goes to (m,).
    """

    keys: Array
    touched: Array
    starts: Array
    to: Array


class Outgoing:
    """One for each server.

    Parameters
    ----------
    fabric : this server's.

    Attributes
    ----------
    view : the number of the one in force.
    sent : what is not acknowledged, by number, oldest first.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.view = 0
        self.sent: dict[int, Sent] = {}
        self._fabric = fabric
        self._numbers = 0
        self._roomless: deque[int] = deque()
        fabric.background.append(self._lay_all)

    def send(
        self,
        successor: int,
        table: tuple[int, TableSpec],
        applied: int,
        kind: Kind,
        rows: Rows,
        steps: list[Entry],
        then: Then,
    ) -> None:
        """Send rows of a table, given by number, copied into the own arena; `then` is for the acknowledgement."""
        number, spec = table
        shape = rows.shards.size, rows.values.shape[0], rows.are_runs
        blob, slot = self.room(size_of(spec, *shape))
        rows.pack(blob)
        self.post(Sent(successor, number, applied, kind, shape, blob, slot, steps, then))

    def send_each(
        self,
        to: Array,
        table: tuple[int, TableSpec],
        applied: int,
        kind: Kind,
        rows: Rows,
        steps: list[Entry],
        then: Then,
    ) -> int:
        """Send rows to the server of each of their shards, ``to`` (m,) int64, -1 for none; how many bytes.

        `then` is for when all have acknowledged theirs.
        """
        countdown, sent = Countdown(then), 0
        for successor in sorted(set(to.tolist()) - {-1}):
            part = rows.only(to == successor)
            sent += part.nbytes
            self.send(successor, table, applied, kind, part, steps, countdown.one_more())
        countdown.done()
        return sent

    def send_keys(
        self, successor: int, table: int, applied: int, kind: Kind, shards: Shards, changed: Changed,
        steps: list[Entry], then: Then,
    ) -> int:  # fmt: skip
        """Send those of the rows that have changed that go to a server, packed as they are here; how many bytes."""
        keys, touched, starts, to = changed
        count, n = counts = count_for(to, starts, successor)
        blob, slot = self.room(size_of(shards.spec, count, n, runs=False))
        shards.pack(keys, touched, starts, to, successor, counts, blob)
        self.post(Sent(successor, table, applied, kind, (count, n, False), blob, slot, steps, then))
        return blob.size

    def room(self, size: int) -> tuple[Array, int | None]:
        """Bytes of the own arena and their offset; or bytes elsewhere, until there is room."""
        if not self._roomless:
            try:
                slot = self._fabric.space.allocate(size)
            except ArenaFull:
                pass
            else:
                return self._fabric.arena[slot : slot + size], slot
        return np.empty(size, np.uint8), None

    def post(self, sent: Sent) -> None:
        """Send what has been packed where there was room."""
        self._numbers += 1
        self.sent[self._numbers] = sent
        if sent.slot is None:
            self._roomless.append(self._numbers)
        else:
            self._tell(self._numbers)

    def _tell(self, number: int) -> None:
        """Tell the successor of a change that lies in the arena."""
        sent = self.sent[number]
        assert sent.slot is not None
        message = Change(
            self.view, number, sent.table, sent.applied, sent.kind, *sent.shape, sent.slot, sent.blob.size, sent.steps
        )
        self._fabric.send(sent.successor, message)

    def _lay_all(self) -> bool:
        """Send what there is room for again."""
        moved = False
        while self._roomless:
            if self._roomless[0] in self.sent and not self._lay(self._roomless[0]):
                break
            self._roomless.popleft()
            moved = True
        return moved

    def _lay(self, number: int) -> bool:
        """Lay a change that had no room into the arena; False without room for it."""
        sent = self.sent[number]
        try:
            slot = self._fabric.space.allocate(sent.blob.size)
        except ArenaFull:
            return False
        blob = self._fabric.arena[slot : slot + sent.blob.size]
        blob[:] = sent.blob
        self.sent[number] = sent._replace(blob=blob, slot=slot)
        self._tell(number)
        return True

    def taken(self, source: int, message: ChangeTaken) -> None:
        """The server after this one has a change."""
        sent = self.sent.get(message.number)
        if sent is not None and sent.successor == source:
            self.drop(message.number)

    def drop(self, number: int) -> None:
        """What has been sent is needed no more: give its place back and do what was to follow."""
        sent = self.sent.pop(number)
        if sent.slot is not None:
            self._fabric.space.free(sent.slot)
        sent.then()

    def when_taken(self, concerns: Callable[[Sent], bool], then: Then) -> None:
        """Call `then` when that of what has been sent so far is acknowledged that it concerns."""
        countdown = Countdown(then)
        for number, sent in self.sent.items():
            if concerns(sent):
                self.sent[number] = sent._replace(then=_both(sent.then, countdown.one_more()))
        countdown.done()

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self.sent and not self._roomless


def _both(first: Then, second: Then) -> Then:
    def then() -> None:
        first()
        second()

    return then
