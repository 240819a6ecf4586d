"""Zeros are not sent, and a pull has them back."""

import numpy as np

from mpips.filters.contract import FilterContract
from tests.filters.travel import Way

ZEROS = {"name": "zeros"}
KEYS = np.array([3, 5, 8, 9], np.uint64)
VALUES = np.array([[0, 0], [0, 2], [0, 0], [np.nan, 0]], np.float32)


class TestZeros(FilterContract):
    may_drop = True

    def spec(self):
        return ZEROS


def test_a_push_has_only_the_entries_that_are_not_zero():
    packet = Way(ZEROS, width=2).send(KEYS, VALUES)
    assert packet.keys.tolist() == [5, 9]
    assert np.array_equal(packet.values, VALUES[[1, 3]], equal_nan=True)


def test_a_range_without_its_zeros_is_a_list_of_rows():
    packet = Way(ZEROS, width=2).send(range(10, 14), VALUES)
    assert packet.keys.tolist() == [11, 13]


def test_a_range_without_zeros_stays_a_range():
    assert Way(ZEROS, width=2).send(range(10, 14), VALUES + 1).keys == range(10, 14)


def test_a_pull_sends_a_bit_for_each_key_and_the_values_that_are_not_zero():
    way = Way(ZEROS, direction="pull", width=2)
    wire = way.sender.encode(KEYS, VALUES)
    assert (wire.keys.nbytes, wire.values.nbytes) == (1, 16)
    assert np.array_equal(way.decode(wire, KEYS).values, VALUES, equal_nan=True)
