"""What a filter is: it encodes the entries of a packet before they travel, and decodes them at the peer.

Source: Li et al. 2014, section 3.6, "user-defined filters".
"""

import zlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np

from mpips.kernels.select import spread_rows, take_keys, take_rows

Array = np.ndarray[Any, Any]
Direction = Literal["push", "pull", "request"]
Part = Literal["keys", "values"]

NOTHING = np.empty(0, np.uint8)


class Packet(NamedTuple):
    """What a filter is given, and gives.

    Parameters
    ----------
    keys : (n,) uint64, or the ``range`` of a dense table's rows. On a pull these are all the keys that were asked for:
        both sides have them, and they don't travel.
    values : (m, width) of the table's dtype; any contiguous array once a filter that hides values has encoded them.
        Their rows belong to `keys`, on a pull to those that are left.
    left : on a pull, (n,) bool for each filter that dropped entries so far: which were left after it.
    note : what the filter's decoder needs to know; None, int, float, bytes, str or a list of these. It travels in the
        message, so it is small.
    """

    keys: Array | range
    values: Array
    left: tuple[Array, ...] = ()
    note: Any = None

    def entries(self) -> Array:
        """The keys that the rows of `values` belong to, (m,) uint64."""
        keys = self.keys
        if isinstance(keys, range):
            keys = np.arange(keys.start, keys.stop, dtype=np.uint64)
        return _kept_keys(keys, self.left[-1]) if self.left else keys


def _kept_keys(keys: Array, kept: Array) -> Array:
    out = np.empty(np.count_nonzero(kept), np.uint64)
    take_keys(keys, kept, out)
    return out


class Setting(NamedTuple):
    """Where a filter works.

    Parameters
    ----------
    direction : "push" (worker to server), "pull" (the values, server to worker) or "request" (the keys of a pull,
        worker to server; there are no values).
    width : values per key of the table.
    dtype : the table's.
    rows : rows that the table has, or is expected to have.
    stream : a number that differs between pairs of peers, so that their random numbers do.
    """

    direction: Direction
    width: int
    dtype: str
    rows: int
    stream: int = 0

    def counter(self, name: str, seed: int) -> int:
        """Where the random numbers of the filter of this name begin."""
        sequence = np.random.SeedSequence((seed, self.stream, zlib.crc32(name.encode())))
        return int(sequence.generate_state(1, np.uint64)[0])


class NoParameters(msgspec.Struct, frozen=True):
    """Of a filter that has none."""


ParametersType = TypeVar("ParametersType", bound=msgspec.Struct)


class Filter(ABC, Generic[ParametersType]):
    """Base of filters. An instance belongs to one table, direction and peer, on each side; it may keep state.

    A filter is a class with a `Parameters` struct, registered under a name; see `mpips.filters.register`.

    Attributes
    ----------
    name : what it is registered as.
    Parameters : frozen `msgspec.Struct` with defaults; its values come from the job file.
    directions : where it works. On a pull, what works on "request" only sees the keys that the worker asks for.
    saves_bytes_only : whether it steps aside on one node, where memory is shared.
    reads : what it must be able to read: no filter before it may have hidden that.
    hides : what it makes into an array of a form of its own, which filters after it can't read.
    """

    name: ClassVar[str]
    Parameters: ClassVar[type[msgspec.Struct]] = NoParameters
    directions: ClassVar[tuple[Direction, ...]] = ("push", "pull")
    saves_bytes_only: ClassVar[bool] = False
    reads: ClassVar[tuple[Part, ...]] = ("keys", "values")
    hides: ClassVar[tuple[Part, ...]] = ()

    def __init__(self, parameters: ParametersType, setting: Setting) -> None:
        self.parameters = parameters
        self.setting = setting

    @abstractmethod
    def encode(self, packet: Packet) -> Packet:
        """What travels instead, with the note for `decode`.

        The arrays of `packet` must not be changed, and its note is None.
        """

    @abstractmethod
    def decode(self, packet: Packet) -> Packet:
        """What `encode` was given, from what it gave; what was hidden comes as flat bytes (uint8).

        It may give bytes for values and keys that were not hidden when it encoded them.
        """

    def forget(self) -> None:
        """Begin again: what was encoded last has not got to the peer."""

    def keep(self, packet: Packet, kept: Array, count: int, factor: float = 1.0) -> Packet:
        """Drop the entries where `kept` (m,) bool is not set; `count` are set. The note says whether any was dropped.

        A push then has shorter lists. On a pull the decoder must put the dropped entries back, see `dropped`.
        """
        if count == kept.size and factor == 1.0:
            return packet._replace(note=False)
        values = np.empty((count, self.setting.width), packet.values.dtype)
        take_rows(packet.values, kept, values.dtype.type(factor), values)
        if self.setting.direction != "pull":
            return Packet(_kept_keys(packet.entries(), kept), values, (), True)
        if packet.left:
            spread = np.empty((packet.left[-1].size, 1), np.bool_)
            spread_rows(kept.reshape(-1, 1), packet.left[-1], spread)
            kept = spread.reshape(-1)
        return Packet(packet.keys, values, (*packet.left, kept), True)

    def dropped(self, packet: Packet) -> tuple[Packet, Array]:
        """On a pull, where `keep` dropped entries: the packet as it was before, but for its values, and `kept` (m,)."""
        *before, kept = packet.left
        restored = packet._replace(left=tuple(before))
        return restored, kept[before[-1]] if before else kept
