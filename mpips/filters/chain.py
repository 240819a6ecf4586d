"""The filters of one table, direction and peer in their order, and the bytes that each of them saves.

Encoding goes through them from first to last, decoding back from last to first. Both sides make their chain from the
same specifications.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
import numpy as np

from mpips.filters.base import NOTHING, Array, Direction, Packet, Setting
from mpips.filters.registry import FilterError, stack
from mpips.schema import nearest

_packed = msgspec.msgpack.Encoder().encode


class Wire(msgspec.Struct, frozen=True):
    """What travels.

    Parameters
    ----------
    keys : uint8 array, or the ``range`` of rows, for which there is none. On a pull the keys stay where they are, and
        this tells which of them have their values here: one bit for each, for each filter that dropped some.
    values : uint8 array.
    notes : a note for each filter, to travel in the message.
    count : entries that `Chain.decode` gives.
    plain : what filters that select entries have left of the packet, before others made it smaller.
    """

    keys: Array | range
    values: Array
    notes: list[Any]
    count: int
    plain: Packet


class Chain:
    """Make one for each peer, at the worker and at the server.

    What one side encodes the other decodes in the same order.

    Parameters
    ----------
    specs : ``{"name": …, parameter: value, …}`` of each filter.
    direction : "push" (keys and values), "request" (the keys of a pull), or "pull" (the values of these keys).
    width, dtype : the table's.
    rows : rows that the table has, or is expected to have.
    near : leave out the filters that only save bytes: the peer is on this node.
    stream : a number that differs between pairs of peers, so that random filters draw different numbers.

    Attributes
    ----------
    raw, sent : bytes of keys, values and notes that `encode` was given, and gave.

    Raises
    ------
    FilterError
        when a filter does not exist, can't work in this direction or in this place, or has wrong parameters.
    """

    def __init__(
        self,
        specs: Sequence[dict[str, Any]],
        direction: Direction,
        width: int,
        dtype: str,
        rows: int,
        near: bool = False,
        stream: int = 0,
    ) -> None:
        self.raw = 0
        self.sent = 0
        self._direction = direction
        self._width = width
        self._dtype = np.dtype(dtype)
        filters = stack(specs, Setting(direction, width, dtype, rows, stream))
        self._filters = [filter_ for filter_ in filters if not (near and filter_.saves_bytes_only)]
        hides = (set(filter_.hides) for filter_ in self._filters)
        self._hidden = list(accumulate(hides, set.union, initial=set[str]()))
        self._saved = dict.fromkeys((filter_.name for filter_ in self._filters), 0)

    def __getitem__(self, name: str) -> Any:
        """The filter of this name, for what it has beyond encoding and decoding.

        Raises
        ------
        FilterError
            when the chain has none.
        """
        for filter_ in self._filters:
            if filter_.name == name:
                return filter_
        raise FilterError(f'there is no filter "{name}" on this {self._direction}; {nearest(name, self._saved)}')

    def __contains__(self, name: str) -> bool:
        """Whether it has a filter of this name, which has not stepped aside."""
        return name in self._saved

    def saved(self) -> dict[str, int]:
        """Bytes that each filter has saved, by its name; negative when it has cost some."""
        return dict(self._saved)

    def forget(self) -> None:
        """Begin again: what was encoded last has not got to the peer."""
        for filter_ in self._filters:
            filter_.forget()

    def encode(self, keys: Array | range, values: Array = NOTHING) -> Wire:
        """Make what travels; it may share memory with the arrays given, which are not changed.

        Parameters
        ----------
        keys : (n,) uint64, each once; or the ``range`` of a dense table's rows. On a pull, the keys asked for.
        values : (n, width) of the table's dtype; none for a request.
        """
        packet, notes, count = Packet(keys, values), [], len(keys)
        raw = size = self._size(packet)
        plain = None
        for filter_, hidden in zip(self._filters, self._hidden[1:], strict=True):
            if filter_.hides and plain is None:
                plain = packet
            packet = filter_.encode(packet)
            now, of_note = self._size(packet), len(_packed(packet.note))
            self._saved[filter_.name] += size - now - of_note
            self.sent += of_note
            size = now
            if "keys" not in hidden:
                count = len(packet.keys)
            notes.append(packet.note)
            packet = packet._replace(note=None)
        self.raw += raw
        self.sent += size
        return Wire(self._which(packet), _as_bytes(packet.values), notes, count, plain or packet)

    def _size(self, packet: Packet) -> int:
        size = packet.values.nbytes
        if self._direction == "pull":
            return size + sum(-(-left.size // 8) for left in packet.left)
        return size if isinstance(packet.keys, range) else size + packet.keys.nbytes

    def _which(self, packet: Packet) -> Array | range:
        if self._direction != "pull":
            return packet.keys if isinstance(packet.keys, range) else _as_bytes(packet.keys)
        return np.concatenate([np.packbits(left) for left in packet.left]) if packet.left else NOTHING

    def decode(
        self, keys: Array | range, values: Array, notes: Sequence[Any], count: int, asked: Array | range | None = None
    ) -> Packet:
        """Make what the peer was given to encode, as far as its filters did not drop or change it.

        Parameters
        ----------
        keys, values, notes, count : of `Wire`; the arrays are only read, and the result may share their memory.
        asked : on a pull, the keys that were asked for: what `encode` was given at the peer.

        Returns
        -------
        Packet
            keys (n,) uint64 or ``range``, and values (n, width) of the table's dtype.

        Raises
        ------
        KeysMissing
            when a list of keys is not known here: have it learned, and decode again. Nothing has changed.
        OutOfStep
            when an answer to a pull is missing: have the peer forget what it sent, and pull again.
        FilterError
            when the peer has other filters, or was asked for other keys.
        """
        if len(notes) != len(self._filters):
            raise FilterError(f"the peer has {len(notes)} filters on this {self._direction}, here are {self._here()}")
        packet = Packet(keys, values)
        if self._direction == "pull":
            assert asked is not None
            assert not isinstance(keys, range)
            packet = Packet(asked, values, _bits(keys, len(asked)))
        packet = self._readable(packet, self._hidden[-1])
        for filter_, hidden, note in zip(self._filters[::-1], self._hidden[-2::-1], notes[::-1], strict=True):
            packet = self._readable(filter_.decode(packet._replace(note=note)), hidden)
        if len(packet.keys) != count:
            raise FilterError(
                f"{len(packet.keys)} entries decoded of {count} encoded: the peer was asked for other keys, or has "
                f"other filters than {self._here()}"
            )
        return packet

    def _readable(self, packet: Packet, hidden: set[str]) -> Packet:
        keys, values = packet.keys, packet.values
        if not ("keys" in hidden or isinstance(keys, range) or keys.dtype == np.uint64):
            packet = packet._replace(keys=keys.view(np.uint64))
        if not ("values" in hidden or values.ndim == 2 or self._direction == "request"):
            packet = packet._replace(values=values.view(self._dtype).reshape(-1, self._width))
        return packet

    def _here(self) -> str:
        return ", ".join(filter_.name for filter_ in self._filters) or "none"


def _as_bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _bits(packed: Array, n: int) -> tuple[Array, ...]:
    stride = -(-n // 8)
    return tuple(
        np.unpackbits(packed[start : start + stride], count=n).view(np.bool_)
        for start in range(0, packed.size, max(stride, 1))
    )
