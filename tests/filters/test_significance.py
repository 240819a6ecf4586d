"""Small updates wait until they add up; small changes of a value are not told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.filters import OutOfStep
from mpips.filters.contract import FilterContract
from tests.filters.travel import Way, column

KEYS = np.array([1, 2, 3], np.uint64)


def limited(**limits):
    return {"name": "significance", **limits}


class TestWithoutLimit(FilterContract):
    may_drop = True  # updates of zero

    def spec(self):
        return limited()


class TestWithAbsoluteLimit(FilterContract):
    may_drop = True
    absolute = 0.25

    def spec(self):
        return limited(absolute=0.25)


class TestWithRelativeLimit(FilterContract):
    may_drop = True
    tolerance = 0.125

    def spec(self):
        return limited(relative=0.125)


def test_a_push_holds_small_updates_back_until_they_add_up():
    way = Way(limited(absolute=1))
    assert way.send(KEYS, column(0.5, 1.5, -0.75)).keys.tolist() == [2]
    packet = way.send(KEYS, column(0.25, 0.5, -0.75))
    assert (packet.keys.tolist(), packet.values.tolist()) == ([3], [[-1.5]])
    keys, updates = way.sender["significance"].held_back()
    assert (keys.tolist(), updates.tolist()) == ([1, 2], [[0.75], [0.5]])
    assert way.sender["significance"].held_back()[0].size == 0


def test_an_entry_goes_whole_when_one_of_its_columns_is_large():
    packet = Way(limited(absolute=1), width=2).send(range(2), np.array([[0.1, 2], [0.5, 0.5]], np.float32))
    assert packet.keys.tolist() == [0]
    assert packet.values.tolist() == [[np.float32(0.1), 2]]


def test_the_relative_limit_of_a_push_is_a_part_of_the_columns_largest():
    packet = Way(limited(relative=0.5), width=2).send(range(3), np.array([[1, 100], [0.75, 0], [0.25, 25]], np.float32))
    assert packet.keys.tolist() == [0, 1]


pushes = st.lists(st.dictionaries(st.integers(0, 300), st.integers(-8, 8), max_size=40), max_size=12)


@given(pushes, st.sampled_from([{}, {"absolute": 5}, {"relative": 0.5}, {"absolute": 100}]))
def test_nothing_that_was_pushed_is_lost(pushes, limits):
    way, sums, arrived = Way(limited(**limits)), np.zeros(301), np.zeros(301)
    for push in pushes:
        keys = sorted(push)
        np.add.at(sums, keys, [push[key] for key in keys])
        packet = way.send(np.array(keys, np.uint64), column(*(push[key] for key in keys)))
        arrived[packet.keys.astype(int)] += packet.values[:, 0]
    keys, updates = way.sender["significance"].held_back()
    arrived[keys.astype(int)] += updates[:, 0]
    assert np.array_equal(arrived, sums)


def test_a_pull_sends_what_changed_since_it_was_last_sent():
    way = Way(limited(absolute=1), direction="pull")
    assert way.send(KEYS, column(0, 10, 20))[1].tolist() == [[0], [10], [20]]
    wire = way.sender.encode(KEYS, column(0.75, 10, 21.5))
    assert wire.values.nbytes == 4
    assert way.decode(wire, KEYS).values.tolist() == [[0], [10], [21.5]]
    assert way.send(KEYS, column(1.5, 10, 21.5)).values.tolist() == [[1.5], [10], [21.5]]


def test_the_relative_limit_of_a_pull_is_a_part_of_what_was_sent():
    way = Way(limited(relative=0.5), direction="pull")
    way.send(KEYS, column(0, 10, -20))
    assert way.send(KEYS, column(0.1, 14, -40)).values.tolist() == [[np.float32(0.1)], [10], [-40]]


def test_a_pull_of_what_did_not_change_sends_no_values(rng):
    way, values = Way(limited(), direction="pull"), rng.normal(size=(1000, 1)).astype("float32")
    way.send(range(1000), values)
    wire = way.sender.encode(range(1000), values)
    assert (wire.keys.nbytes, wire.values.nbytes) == (125, 0)
    assert np.array_equal(way.decode(wire, range(1000)).values, values)


def test_a_lost_answer_is_noticed_and_made_good_when_the_sender_forgets():
    way = Way(limited(), direction="pull")
    way.send(KEYS, column(1, 2, 3))
    way.sender.encode(KEYS, column(1, 2, 4))
    with pytest.raises(OutOfStep, match=r"packet 3 .* after packet 1: have its sender forget"):
        way.send(KEYS, column(1, 2, 4))
    way.sender["significance"].forget()
    assert way.send(KEYS, column(1, 2, 4)).values.tolist() == [[1], [2], [4]]
    assert way.send(KEYS, column(1, 5, 4)).values.tolist() == [[1], [5], [4]]


def test_a_sender_in_place_of_another_begins_with_all_values():
    way = Way(limited(absolute=1), direction="pull")
    way.send(KEYS, column(1, 2, 3))
    way.send(KEYS, column(5, 2, 3))
    way.sender = Way(limited(absolute=1), direction="pull").sender
    assert way.send(KEYS, column(5.5, 2.5, 0)).values.tolist() == [[5.5], [2.5], [0]]
