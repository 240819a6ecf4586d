"""What every filter must do, as tests: a test class inherits `FilterContract` and says which filter it is about.

Needs pytest and hypothesis.

Examples
--------
>>> class TestClip(mpips.filters.contract.FilterContract):
...     tolerance = 1.0
...
...     def spec(self):
...         return {"name": "clip", "limit": 10.0}
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpips.filters.base import NOTHING, Array, Direction, Packet
from mpips.filters.chain import Chain
from mpips.filters.registry import FILTERS

FAIR = settings(
    max_examples=60,
    deadline=None,  # kernels compile at their first call
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)
LARGE = 20_000


class Entries(NamedTuple):
    """What a test encodes: keys and values, and where they belong."""

    direction: Direction
    keys: Array | range
    values: Array

    def listed(self) -> Array:
        """The keys as a list."""
        return np.asarray(self.keys, np.uint64)

    def chain(self, spec: dict[str, Any]) -> Chain:
        """A chain of one filter."""
        width = self.values.shape[1] if self.values.ndim == 2 else 1
        dtype = str(self.values.dtype) if self.values.ndim == 2 else "float32"
        return Chain([spec], self.direction, width, dtype, rows=len(self.keys))


@st.composite
def _entries(draw: st.DrawFn, directions: tuple[Direction, ...]) -> Entries:
    return _drawn(draw, draw(st.sampled_from(directions)), draw(st.sampled_from((1, 3))), draw(_DTYPES))


@st.composite
def _several(draw: st.DrawFn, directions: tuple[Direction, ...]) -> list[Entries]:
    """Entries for one chain, the same keys again among them."""
    direction, width, dtype = draw(st.sampled_from(directions)), draw(st.sampled_from((1, 3))), draw(_DTYPES)
    lists = [_drawn(draw, direction, width, dtype) for _ in range(draw(st.integers(1, 4)))]
    order = draw(st.lists(st.sampled_from(lists), min_size=1, max_size=8))
    return [one._replace(values=_values(draw, direction, len(one.keys), width, dtype)) for one in order]


_DTYPES = st.sampled_from(("float32", "float64"))


def _drawn(draw: st.DrawFn, direction: Direction, width: int, dtype: str) -> Entries:
    n = draw(st.sampled_from((0, 1, 2, 7, 100, LARGE)))
    keys = _keys(draw, n)
    return Entries(direction, keys, _values(draw, direction, n, width, dtype))


def _keys(draw: st.DrawFn, n: int) -> Array | range:
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    kind = draw(st.sampled_from(("rows", "range", "any", "largest")))
    if kind == "range":
        lo = draw(st.integers(0, 1000))
        return range(lo, lo + n)
    keys = rng.choice(3 * n + 1, n, replace=False).astype(np.uint64)
    if kind == "largest":
        keys = np.arange(2**64 - n, 2**64, dtype=np.uint64)
    elif kind == "any":
        keys = np.unique(rng.integers(0, 2**64, 2 * n, np.uint64))[:n]
    keys.sort()
    return keys


def _values(draw: st.DrawFn, direction: Direction, n: int, width: int, dtype: str) -> Array:
    """Values whose columns are of different magnitudes, with zeros among them."""
    if direction == "request":
        return NOTHING
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    magnitudes = np.array(draw(st.lists(st.sampled_from((1.0, 1e-6, 1e6)), min_size=width, max_size=width)))
    present = rng.random((n, 1)) < draw(st.sampled_from((0.0, 0.3, 1.0)))
    values: Array = (rng.uniform(-1, 1, (n, width)) * magnitudes * present).astype(dtype)
    return values


class FilterContract:
    """Inherit it, and give the filter by `spec`.

    Attributes
    ----------
    tolerance : how far a value may be from what was encoded, in parts of the largest magnitude in its column; 0: not at
        all.
    absolute : how far it may be beside that.
    may_drop : whether entries of a push may stay away. On a pull, every key that was asked for gets its value.
    """

    tolerance: ClassVar[float] = 0.0
    absolute: ClassVar[float] = 0.0
    may_drop: ClassVar[bool] = False

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The filter as the job file has it."""

    def delivered(self, values: Array) -> Array:
        """What values (n, width) are when they arrive; for a filter that scales them."""
        return values

    def _directions(self) -> tuple[Direction, ...]:
        return FILTERS[self.spec()["name"]].directions

    def _travel(self, sender: Chain, receiver: Chain, entries: Entries) -> Packet:
        """Encode, send by message and by memory, decode; what came must be well formed."""
        before = entries.listed().copy(), entries.values.copy()
        wire = sender.encode(entries.keys, entries.values)
        assert np.array_equal(before[0], entries.listed()), "encode changed the keys"
        assert np.array_equal(before[1], entries.values), "encode changed the values"
        notes = msgspec.msgpack.decode(msgspec.msgpack.encode(wire.notes))
        keys = wire.keys if isinstance(wire.keys, range) else wire.keys.copy()
        asked = entries.keys if entries.direction == "pull" else None
        packet = receiver.decode(keys, wire.values.copy(), notes, wire.count, asked)
        assert wire.count == len(packet.keys)
        if entries.direction != "request":
            assert packet.values.shape == (len(packet.keys), entries.values.shape[1])
            assert packet.values.dtype == entries.values.dtype
        return packet

    def _check_keys(self, packet: Packet, entries: Entries) -> Array:
        """The positions of the keys that came, which must be in their order."""
        came, keys = np.asarray(packet.keys, np.uint64), entries.listed()
        if not (self.may_drop and entries.direction == "push"):
            assert np.array_equal(came, keys)
            return np.arange(keys.size)
        position = {key: i for i, key in enumerate(keys.tolist())}
        at = np.array([position[key] for key in came.tolist()], np.int64)
        assert (np.diff(at) > 0).all(), "the order of keys has changed"
        return at

    def _check_values(self, packet: Packet, entries: Entries, at: Array, largest: Array) -> None:
        if entries.direction == "request":
            return
        expected = self.delivered(entries.values)[at]
        wrong = np.abs(packet.values.astype(np.float64) - expected)
        assert (wrong <= self.absolute + self.tolerance * largest).all(), f"wrong by up to {wrong.max()}"

    @FAIR
    @given(st.data())
    def test_what_arrives_is_what_was_sent(self, data: st.DataObject) -> None:
        """Lists and ranges, of no entry, one and many, narrow and wide, of both types."""
        entries = data.draw(_entries(self._directions()))
        packet = self._travel(entries.chain(self.spec()), entries.chain(self.spec()), entries)
        at = self._check_keys(packet, entries)
        self._check_values(packet, entries, at, _largest(entries.values))

    @FAIR
    @given(st.data())
    def test_both_sides_stay_in_step_over_many_packets(self, data: st.DataObject) -> None:
        """With lists that come again, and new ones."""
        several = data.draw(_several(self._directions()))
        sender, receiver = several[0].chain(self.spec()), several[0].chain(self.spec())
        largest = np.zeros(several[0].values.shape[1:])
        for entries in several:
            packet = self._travel(sender, receiver, entries)
            at = self._check_keys(packet, entries)
            largest = np.maximum(largest, _largest(entries.values))
            if not (self.may_drop and entries.direction == "push"):
                self._check_values(packet, entries, at, 2 * largest)  # an error of before may have been added

    @FAIR
    @given(st.data())
    def test_bytes_are_counted(self, data: st.DataObject) -> None:
        """What went in, what came out, and what the filter made of it."""
        entries = data.draw(_entries(self._directions()))
        chain = entries.chain(self.spec())
        raw = sent = 0
        for _ in range(2):
            wire = chain.encode(entries.keys, entries.values)
            of_keys = 0 if isinstance(entries.keys, range) or entries.direction == "pull" else 8 * len(entries.keys)
            raw += of_keys + entries.values.nbytes
            sent += 0 if isinstance(wire.keys, range) else wire.keys.nbytes
            sent += wire.values.nbytes + sum(len(msgspec.msgpack.encode(note)) for note in wire.notes)
        assert (chain.raw, chain.sent) == (raw, sent)
        assert chain.saved() == {self.spec()["name"]: raw - sent}


def _largest(values: Array) -> Array:
    return np.asarray(np.abs(values).max(axis=0, initial=0), np.float64)
