"""What is applied in one round goes to the copies together, and never without what else has changed its rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from mpips.server.coalescing import Applied, Coalescing
from tests.shards import table

ROWS = 10_000


class Head:
    """A server that adds to rows of a table, and what a copy makes of what it is told."""

    def __init__(self):
        self.fabric = SimpleNamespace(background=[])
        spec = table(rows=ROWS)
        tables = [SimpleNamespace(shards=SimpleNamespace(spec=spec))] * 2
        self.coalescing = Coalescing(self.fabric, tables, self.send)
        self.values, self.copy = np.zeros(ROWS), np.zeros(ROWS)
        self.sent, self.known, self.applied, self.done = [], {}, {}, []

    def push(self, identity, step, keys, lo=0, hi=ROWS, listed=True):
        rows = np.array(keys, np.uint64)
        self.coalescing.make_way_for_push(0, lo, hi, rows if listed else None)
        self.values[rows] += 1
        self.applied[identity] = step
        then = lambda: self.done.append((identity, step))  # noqa: E731
        self.coalescing.add(0, Applied(lo, hi, rows if listed else None, [(identity, lo, hi, step)], False), then)

    def send(self, number, applied, then):
        keys = np.arange(applied.lo, applied.hi) if applied.keys is None else applied.keys
        self.copy[keys] = self.values[keys]
        self.known |= {identity: step for identity, _, _, step in applied.steps}
        assert self.known == self.applied, "the copy has rows without knowing of what pushes, or the other way"
        self.sent.append((number, applied, then))

    def round(self):
        for step in self.fabric.background:
            step()


def test_pushes_of_a_round_go_as_one_change_with_every_row_once():
    head = Head()
    head.push(1, 1, [3, 5, 7])
    head.push(2, 1, [5, 6])
    head.push(1, 2, [1, 7])
    assert not head.sent
    head.round()
    ((number, applied, then),) = head.sent
    assert number == 0
    assert applied.keys.tolist() == [1, 3, 5, 6, 7]
    assert sorted(applied.steps) == [(1, 0, ROWS, 2), (2, 0, ROWS, 1)]
    assert (head.copy == head.values).all()
    assert not head.done
    then()
    assert head.done == [(1, 1), (2, 1), (1, 2)]
    assert head.coalescing.idle
    assert not head.coalescing.flush()


def test_a_push_of_its_own_goes_as_it_is():
    head = Head()
    keys = [2, 4]
    head.push(1, 9, keys)
    head.round()
    assert head.sent[0][1].keys.tolist() == keys
    assert head.sent[0][1].steps == [(1, 0, ROWS, 9)]


@pytest.mark.parametrize("other", [{"lo": 5}, {"hi": 50}, {"listed": False}])
def test_what_waits_is_sent_before_a_push_is_applied_that_cannot_go_with_it(other):
    head = Head()
    head.push(1, 1, [7, 9])
    head.push(2, 1, range(other.get("lo", 0), other.get("hi", ROWS)), **other)
    assert len(head.sent) == 1
    head.round()
    assert len(head.sent) == 2
    assert (head.copy == head.values).all()


def test_way_is_made_for_a_function_in_one_table():
    head = Head()
    head.push(1, 1, [7])
    head.coalescing.make_way(1)
    assert not head.sent
    head.coalescing.make_way(0)
    assert len(head.sent) == 1
