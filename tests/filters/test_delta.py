"""Changes of values in steps, coded in few bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.filters import OutOfStep
from mpips.filters.contract import FilterContract
from tests.filters.travel import Way, column

KEYS = np.array([1, 2, 3], np.uint64)
MANY = range(1000)


def delta(**settings):
    return {"name": "delta", **settings}


class TestAbsoluteStep(FilterContract):
    absolute = 0.25

    def spec(self):
        return delta(absolute=0.25)


class TestRelativeStep(FilterContract):
    absolute = 0.25
    tolerance = 0.125

    def spec(self):
        return delta(absolute=0.25, relative=0.125)


class TestStepOfTheChanges(FilterContract):
    absolute = 0.25
    tolerance = 0.5

    def spec(self):
        return delta(absolute=0.25, spread=0.5)


directions = pytest.mark.parametrize("direction", ["push", "pull"])


@directions
def test_every_value_arrives_to_half_a_step_however_often_it_changed(direction, rng):
    way, values = Way(delta(absolute=0.5), direction=direction), np.zeros((1000, 1), np.float32)
    for _ in range(50):
        values += rng.normal(size=(1000, 1))
        assert np.abs(way.send(MANY, values).values - values).max() <= 0.2501


@directions
def test_what_is_at_rest_takes_hardly_any_bytes(direction, rng):
    way, values = Way(delta(absolute=0.01), direction=direction), rng.normal(size=(1000, 1)).astype("float32")
    first = way.sender.encode(MANY, values)
    assert 1000 * 8 / 8 < first.values.nbytes < 1000 * 11 / 8  # log2(100 sqrt(2 pi e)) is 8.7 bits a value
    assert way.sender.encode(MANY, values).values.nbytes < 20
    values[::100] += 0.05
    assert way.sender.encode(MANY, values).values.nbytes < 30


def test_a_step_follows_the_value_or_the_changes_of_its_column(rng):
    values = np.column_stack([rng.normal(size=1000), 1e6 * rng.normal(size=1000)]).astype("float32")
    way = Way(delta(absolute=1e-3, spread=0.1), width=2)
    wrong = np.abs(way.send(MANY, values).values - values).max(axis=0)
    assert 0.04 < wrong[0] < 0.06
    assert 4e4 < wrong[1] < 6e4
    way = Way(delta(absolute=1.0, relative=0.1))
    way.send(KEYS, column(0, 100, -1000))
    assert way.send(KEYS, column(4, 104, -1051)).values.tolist() == [[4], [100], [-1100]]


@given(st.lists(st.lists(st.sampled_from([0.0, 0.3, 5.0, -70.0]), min_size=3, max_size=3), min_size=2, max_size=8))
def test_what_was_never_other_than_zero_is_zero(rows):
    way = Way(delta(absolute=0.01, spread=1.0))
    for row in rows:
        came = way.send(KEYS, column(*row)).values[:, 0]
        assert (came[~np.any(rows, axis=0)] == 0).all()


def test_what_comes_within_half_a_step_of_zero_becomes_zero():
    way = Way(delta(absolute=1.0, relative=0.3))
    way.send(KEYS, column(100, 100, 100))
    assert way.send(KEYS, column(0, 12, 40)).values.tolist() == [[0], [0], [40]]


def test_keys_that_change_every_time_cost_the_others_nothing(rng):
    way, values, moving = Way(delta(absolute=1.0)), np.zeros((1000, 1), np.float32), rng.random(1000) < 0.5
    sizes = []
    for _ in range(4):
        values[moving, 0] += rng.choice([-1, 1], moving.sum())
        sizes.append(way.sender.encode(MANY, values).values.nbytes)
    assert sizes[0] > 1000 * 1.4 / 8  # a bit for whether it moves, and the half of them one for where to
    assert sizes[-1] < 1000 * 0.8 / 8


@directions
def test_nan_goes_as_it_is_and_changes_nothing(direction):
    way = Way(delta(absolute=0.5), direction=direction)
    many = np.ones((1000, 1), np.float32)
    way.send(MANY, many)
    odd = many.copy()
    odd[5], odd[7] = np.nan, np.inf
    assert np.array_equal(way.send(MANY, odd).values, odd, equal_nan=True)
    assert np.array_equal(way.send(MANY, many).values, many)


def test_values_of_far_more_than_so_many_steps_go_as_they_are(rng):
    way, values = Way(delta(absolute=1e-9), dtype="float64"), 1e9 * rng.normal(size=(1000, 1))
    assert np.array_equal(way.send(MANY, values).values, values)


@directions
def test_a_lost_packet_is_noticed_and_made_good_when_the_sender_forgets(direction):
    way, many = Way(delta(absolute=0.5), direction=direction), np.ones((1000, 1), np.float32)
    way.send(MANY, many)
    way.sender.encode(MANY, 2 * many)
    with pytest.raises(OutOfStep, match=r"packet 3 .* after packet 1: have its sender forget"):
        way.send(MANY, 3 * many)
    way.sender["delta"].forget()
    assert np.array_equal(way.send(MANY, 4 * many).values, 4 * many)
    assert np.array_equal(way.send(MANY, 5 * many).values, 5 * many)
