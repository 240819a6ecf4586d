"""A random part of a push, whose expectation is right."""

import numpy as np

from mpips.filters import Chain
from mpips.filters.contract import FilterContract
from tests.filters.travel import Way

QUARTER = {"name": "random_skip", "probability": 0.25}


class TestRandomSkip(FilterContract):
    may_drop = True

    def spec(self):
        return QUARTER

    def delivered(self, values):
        return values * values.dtype.type(4)


def test_the_sum_of_many_pushes_is_that_of_all_values(rng):
    way, values = Way(QUARTER), rng.normal(size=(100, 1)).astype("float32")
    total, pushes = np.zeros((100, 1)), 4000
    for _ in range(pushes):
        packet = way.send(range(100), values)
        total[packet.keys.astype(int)] += packet.values
    deviation = np.abs(values) * np.sqrt((1 / 0.25 - 1) / pushes)
    assert (np.abs(total / pushes - values) < 6 * deviation).all()


def test_a_single_entry_is_scaled_too():
    way = Way(QUARTER)
    arrived = [way.send(range(1), np.ones((1, 1), np.float32)).values for _ in range(100)]
    assert set(np.concatenate(arrived).ravel().tolist()) == {4.0}


def test_every_push_draws_anew_and_the_same_seed_draws_the_same():
    def drawn(**settings):
        stream = settings.pop("stream", 0)
        chain = Chain([{**QUARTER, **settings}], "push", 1, "float32", 1000, stream=stream)
        return [chain.encode(range(1000), np.ones((1000, 1), np.float32)).keys.tobytes() for _ in range(3)]

    assert len({*drawn(), *drawn(seed=1), *drawn(stream=1)}) == 9
    assert drawn() == drawn()


def test_a_probability_of_one_sends_everything(rng):
    values = rng.normal(size=(50, 1)).astype("float32")
    packet = Way({"name": "random_skip", "probability": 1}).send(range(50), values)
    assert packet.keys == range(50)
    assert np.array_equal(packet.values, values)
