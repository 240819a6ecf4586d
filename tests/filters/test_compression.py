"""Keys and values through a compressor."""

import sys

import numpy as np
import pytest

from mpips.filters import CompressorMissing
from mpips.filters.contract import FilterContract
from tests.filters.travel import Way, some_keys


def compression(codec):
    return {"name": "compression", "codec": codec}


class TestZstd(FilterContract):
    def spec(self):
        return compression("zstd")


class TestLz4(FilterContract):
    def spec(self):
        return compression("lz4")


class TestBlosclz(FilterContract):
    def spec(self):
        return compression("blosclz")


CODECS = pytest.mark.parametrize("codec", ["zstd", "lz4", "blosclz"])


@CODECS
def test_sorted_keys_take_less_than_a_quarter(codec, rng):
    wire = Way(compression(codec), direction="request").sender.encode(some_keys(4096, rng))
    assert wire.keys.nbytes < 4096 * 8 / 4


@CODECS
def test_values_that_repeat_are_compressed(codec, rng):
    values = rng.choice([0.0, 0.5, 1.0], (4096, 1)).astype("float32")
    assert Way(compression(codec)).sender.encode(range(4096), values).values.nbytes < values.nbytes * 0.6


@CODECS
def test_what_does_not_get_smaller_goes_as_it_is(codec, rng):
    noise = rng.integers(0, 2**32, (4096, 1), np.uint32).view(np.float32)
    wire = Way(compression(codec), direction="pull").sender.encode(range(4096), noise)
    assert wire.values.nbytes == noise.nbytes
    assert wire.notes == [None]


def test_without_blosc2_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "blosc2", None)
    with pytest.raises(CompressorMissing, match="pip install blosc2"):
        Way(compression("lz4"))
