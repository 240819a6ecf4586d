"""Keys that satisfy the optimality conditions are not pushed."""

import numpy as np
import pytest

from mpips.filters import Chain
from mpips.filters.contract import FilterContract
from tests.filters.travel import Way, column

KKT = {"name": "kkt", "tolerance": 0.1}
KEYS = np.array([2, 4, 6, 2**64 - 1], np.uint64)


class TestKkt(FilterContract):
    def spec(self):
        return KKT


@pytest.fixture
def kkt():
    return Chain([KKT], "push", 1, "float32", 10)["kkt"]


def test_keys_are_wanted_that_are_unknown_or_violate_the_conditions(kkt):
    kkt.learn(KEYS[:3], np.array([0.0, 0.1, 0.2]))
    assert kkt.wanted(KEYS).tolist() == [False, False, True, True]


def test_what_is_learned_later_replaces_what_was_before(kkt):
    kkt.learn(KEYS, np.zeros(4))
    kkt.learn(KEYS[1:2], np.array([1.0]))
    assert kkt.wanted(KEYS).tolist() == [False, True, False, False]


def test_the_tolerance_can_change_at_any_time(kkt):
    kkt.learn(KEYS, np.array([0.0, 1, 2, 3]))
    kkt.tolerance = 2
    assert kkt.wanted(KEYS).tolist() == [False, False, False, True]


def test_all_keys_are_wanted_again_after_forget(kkt):
    kkt.learn(KEYS, np.zeros(4))
    kkt.forget()
    assert kkt.wanted(KEYS).all()


def test_a_violation_that_is_not_a_number_is_wanted(kkt):
    kkt.learn(KEYS[:1], np.array([np.nan]))
    assert kkt.wanted(KEYS[:1]).all()


def test_entries_that_are_not_wanted_are_dropped_and_counted():
    way = Way(KKT)
    kkt = way.sender["kkt"]
    kkt.learn(KEYS[:2], np.zeros(2))
    packet = way.send(KEYS, column(1, 2, 3, 4))
    assert packet.keys.tolist() == KEYS[2:].tolist()
    assert packet.values.tolist() == [[3], [4]]
    way.send(range(4), column(1, 2, 3, 4))
    assert kkt.dropped_entries == 3
