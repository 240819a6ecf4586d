"""Copies made in the background: in a share of the time, whole shards and changed rows in turn; at rest all of it."""

from types import SimpleNamespace

import numpy as np
import pytest

from mpips.fabric.arena import Allocator
from mpips.messages import ChangeTaken, ShardsWanted
from mpips.server.copies import Copies
from mpips.server.copying import UNDER_WAY, UNDER_WAY_AT_REST, Copying
from mpips.server.outgoing import Outgoing
from mpips.views.view import Roles, assign
from tests.shards import shards_of, table

OTHER = 7
SHARE = 0.25
TOOK = 0.08  # seconds from one look at the clock to the next: longer than it takes until rows are due again


class Head:
    """A server that leads a table's shards and is to make another copies of them."""

    def __init__(self):
        self.time = 0.0
        self.said = []
        arena = np.zeros(8 << 20, np.uint8)
        self.fabric = SimpleNamespace(
            background=[], now=self.now, send=self.send, arena=arena, space=Allocator(arena.size), rank=0
        )
        self.outgoing = Outgoing(self.fabric)
        spec = table(rows=100_000, rule={"name": "add"})
        self.copies = Copies(shards_of(spec))
        self.copies.coming[:] = OTHER
        self.copying = Copying(self.fabric, [self.copies], self.outgoing, lambda view: SHARE)
        self.copying.viewed(assign([0] * 3, Roles()))
        self.shards = spec.shards
        self.copying.wanted(OTHER, ShardsWanted(1, [(0, shard, -1) for shard in range(spec.shards)]))

    def now(self):
        self.time += TOOK
        return self.time

    def send(self, dest, message):
        assert dest == OTHER
        self.said.append(message)

    def change(self):
        keys = np.arange(0, self.copies.shards.spec.rows, 97, dtype=np.uint64)
        touched, starts = self.copies.shards.touched(0, 0, keys)
        self.copies.shards.numbers[touched] += 1
        self.copies.behind.changed(touched, starts, keys)

    def step(self):
        for step in self.fabric.background:
            step()

    def answer(self):
        for message in self.said:
            self.outgoing.taken(OTHER, ChangeTaken(1, message.number))
        said, self.said = self.said, []
        return [message.kind for message in said]


def test_shards_get_their_turn_though_rows_change_all_the_time():
    head, kinds = Head(), []
    for _ in range(12 * head.shards):
        head.change()
        head.step()
        kinds += head.answer()
        if kinds.count("whole") == head.shards:
            break
    assert kinds.count("whole") == head.shards
    assert "later" in kinds


@pytest.mark.parametrize(("resting", "most"), [(False, UNDER_WAY), (True, UNDER_WAY_AT_REST)])
def test_only_so_many_are_sent_that_the_other_has_not_taken(resting, most):
    head = Head()
    if resting:
        head.copying.drain(lambda: None)
    for _ in range(40 * most):
        head.step()
    assert len(head.said) == most


def test_what_it_takes_is_a_share_of_the_time():
    head = Head()
    while head.copies.behind.whole:
        head.step()
        head.answer()
    took = 3 * TOOK * head.shards  # each is sent between looks at the clock
    assert head.time == pytest.approx(took / SHARE, rel=0.5)


def test_at_rest_the_last_rows_go_and_then_the_clocks():
    head, done = Head(), []
    while head.copies.behind.whole:
        head.step()
        head.answer()
    head.change()
    head.copies.shards.clock.advance(3, 0, 100, 5)
    head.copying.drain(lambda: done.append(True))
    kinds = []
    while not done:
        head.step()
        kinds += head.answer()
    assert kinds[-1] == "clock"
    assert set(kinds) == {"later", "clock"}
    assert not head.copies.behind.lacks
    assert head.outgoing.idle
