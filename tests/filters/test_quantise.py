"""Fixed point of one to four bytes."""

import numpy as np
import pytest

from mpips.filters import Chain
from mpips.filters.contract import FilterContract
from tests.filters.travel import Way, some_keys


def quantise(size, **settings):
    return {"name": "quantise", "bytes": size, **settings}


class TestOneByte(FilterContract):
    tolerance = 1 / 127

    def spec(self):
        return quantise(1)


class TestTwoBytes(FilterContract):
    tolerance = 1 / 32767

    def spec(self):
        return quantise(2)


class TestThreeBytes(FilterContract):
    tolerance = 1.5 / 8388607  # float32 has no more than 24 bits itself

    def spec(self):
        return quantise(3)


class TestFourBytes(FilterContract):
    tolerance = 2**-23

    def spec(self):
        return quantise(4)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_value_takes_so_many_bytes(size, rng):
    wire = Way(quantise(size), width=3).sender.encode(range(10), rng.normal(size=(10, 3)).astype("float32"))
    assert wire.values.nbytes == 30 * size


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_rounding_has_no_bias(direction, rng):
    values = rng.uniform(-1, 1, (100, 1)).astype("float32")
    keys = np.arange(100, dtype=np.uint64)
    mean = np.zeros((100, 1))
    times = 3000
    for seed in range(times):
        mean += Way(quantise(1, seed=seed), direction=direction).send(keys, values).values / times
    step = np.abs(values).max() / 127
    assert (np.abs(mean - values) < 6 * step / 2 / np.sqrt(times)).all()


def test_what_was_rounded_off_a_key_is_pushed_with_its_next_value(rng):
    way, keys = Way(quantise(1), width=2, dtype="float64"), some_keys(500, rng)
    sums, arrived, largest = np.zeros((500, 2)), np.zeros((500, 2)), np.zeros(2)
    for _ in range(200):
        some = np.flatnonzero(rng.random(500) < 0.5)
        values = rng.normal(size=(some.size, 2)) * [1, 1e6]
        sums[some] += values
        arrived[some] += way.send(keys[some], values).values
        largest = np.maximum(largest, np.abs(values).max(axis=0))
    assert (np.abs(arrived - sums) <= 1.1 * largest / 127).all()


def test_a_pull_carries_nothing_over():
    values = np.array([[1.0], [0.3]], np.float32)
    way = Way(quantise(1), direction="pull")
    assert all(abs(way.send(range(2), values).values[1, 0] - 0.3) <= 1 / 127 for _ in range(100))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_zero_and_the_largest_and_smallest_numbers_arrive(size, dtype):
    limits = np.finfo(dtype)
    values = np.array([[0, limits.max, limits.smallest_subnormal], [0, -limits.max, 0], [0, 0, 0]], dtype)
    arrived = Way(quantise(size), width=3, dtype=dtype).send(range(3), values).values
    assert (arrived[values == 0] == 0).all()
    assert np.allclose(arrived, values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_go_as_they_are(bad):
    values = np.array([[1.0], [bad]], np.float32)
    assert np.array_equal(Way(quantise(1), direction="pull").send(range(2), values).values, values, equal_nan=True)


def test_every_packet_is_rounded_anew(rng):
    way, values = Way(quantise(1), direction="pull"), rng.normal(size=(100, 1)).astype("float32")
    assert len({way.sender.encode(range(100), values).values.tobytes() for _ in range(3)}) == 3


def test_the_same_seed_and_stream_round_alike_and_others_do_not(rng):
    values = rng.normal(size=(100, 1)).astype("float32")

    def encoded(seed, stream):
        chain = Chain([quantise(1, seed=seed)], "push", 1, "float32", 100, stream=stream)
        return chain.encode(range(100), values).values.tobytes()

    assert encoded(0, 0) == encoded(0, 0)
    assert len({encoded(0, 0), encoded(1, 0), encoded(0, 1)}) == 3
