"""Arrays that ranks hand each other under keys that both know, without either waiting for the other.

Who gives lays an array into its arena and tells the taker, who reads it there: on the same node by its pointer, from
another node one-sidedly. Either may come first.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mpips.fabric import ArenaFull, Fabric
from mpips.fabric.arena import ALIGN
from mpips.messages import Piece, PieceRead

Array = np.ndarray[Any, Any]
Key = tuple[int, ...]


class Exchange:
    """What one rank takes from others under a key.

    Attributes
    ----------
    missing : where to put what is not there yet, by the rank that gives it.
    """

    __slots__ = ("missing",)

    def __init__(self, out: Mapping[int, Array]) -> None:
        self.missing = dict(out)

    @property
    def finished(self) -> bool:
        """Whether all is there."""
        return not self.missing


class Exchanges:
    """One for each rank.

    A key begins with an *era*: who takes part in exchanges has the same, and a later one when somebody is replaced.
    Then what was under way is of no use; what was laid for others stays until they have read it, or say that they will
    not, so nobody reads what something else was written over.

    Parameters
    ----------
    fabric : the rank's.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._era = 0
        self._numbers = 0
        self._laid: dict[int, int] = {}  # offsets, by the number of the piece
        self._readers: dict[int, set[int]] = {}  # of what is at an offset: pieces that are not read
        self._to: dict[int, int] = {}  # by piece, the rank that it is for
        self._open: dict[Key, Exchange] = {}
        self._early: dict[tuple[Key, int], Piece] = {}  # by key and giver
        self._heard: dict[int, int] = {}  # by giver, the last piece that it told of
        fabric.on(Piece, self._given)
        fabric.on(PieceRead, self._read)

    def begin(self, era: int) -> None:
        """What belongs to earlier eras is over."""
        self._era = era
        self._open.clear()
        for (key, source), piece in list(self._early.items()):
            if key[0] < era:
                del self._early[key, source]
                self._fabric.send(source, PieceRead(piece.number))

    def viewed(self, lost: list[int]) -> None:
        """These ranks are dead: they read nothing more."""
        for number in [number for number, rank in self._to.items() if rank in lost]:
            self._free(number)
        for key, source in [known for known in self._early if known[1] in lost]:
            del self._early[key, source]

    @property
    def unread(self) -> int:
        """How many pieces that were given nobody has read."""
        return len(self._to)

    # --- giving -----------------------------------------------------------------------------------------------------

    def give(self, key: Key, to: Mapping[int, Array]) -> None:
        """Hand arrays to ranks, under a key of this era; one that goes to several is laid once. They may be changed as
        soon as this returns.

        Raises
        ------
        Deadline
            when the arena stays full.
        ArenaFull
            when it is too small.
        """
        arrays = {id(array): array for array in to.values()}
        places = {which: self._room(array.nbytes) for which, array in arrays.items()}
        if key[0] < self._era:  # which came while there was no room
            for offset in places.values():
                self._fabric.space.free(offset)
            return
        for which, offset in places.items():
            array = arrays[which]
            laid = self._fabric.arena[offset : offset + array.nbytes]
            laid.view(array.dtype).reshape(array.shape)[...] = array
            self._readers[offset] = set()
        for rank, array in to.items():
            offset = places[id(array)]
            self._numbers += 1
            self._laid[self._numbers], self._to[self._numbers] = offset, rank
            self._readers[offset].add(self._numbers)
            self._fabric.send(rank, Piece(self._numbers, list(key), offset, array.nbytes))

    def _room(self, size: int) -> int:
        space, found = self._fabric.space, list[int]()

        def fits() -> bool:
            try:
                found.append(space.allocate(size))
            except ArenaFull:
                if size + ALIGN > space.size:
                    raise
                return False
            return True

        self._fabric.wait(fits, f"{size:,} bytes of the arena, of which {space.used:,} of {space.size:,} are in use")
        return found[0]

    def _read(self, source: int, message: PieceRead) -> None:
        if self._to.get(message.number) == source:
            self._free(message.number)

    def _free(self, number: int) -> None:
        offset = self._laid.pop(number)
        del self._to[number]
        self._readers[offset].discard(number)
        if not self._readers[offset]:
            del self._readers[offset]
            self._fabric.space.free(offset)

    # --- taking -----------------------------------------------------------------------------------------------------

    def take(self, key: Key, out: Mapping[int, Array]) -> Exchange:
        """Have what these ranks give under a key of this era put into these arrays; a key is used once."""
        exchange = Exchange(out)
        if out:
            self._open[key] = exchange
        for source in out:
            piece = self._early.pop((key, source), None)
            if piece is not None:
                self._take(source, piece, key, exchange)
        return exchange

    def _given(self, source: int, message: Piece) -> None:
        if message.number <= self._heard.get(source, 0):
            return  # a repetition
        self._heard[source] = message.number
        key = tuple(message.key)
        exchange = self._open.get(key)
        if key[0] < self._era:
            self._fabric.send(source, PieceRead(message.number))
        elif exchange is not None:
            self._take(source, message, key, exchange)
        else:
            self._early[key, source] = message

    def _take(self, source: int, piece: Piece, key: Key, exchange: Exchange) -> None:
        def put(blob: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
            if self._open.get(key) is exchange:
                place = exchange.missing.pop(source)
                place[...] = blob.view(place.dtype).reshape(place.shape)
                if exchange.finished:
                    del self._open[key]
            self._fabric.send(
                source, PieceRead(piece.number)
            )  # not before: then the giver may lay something else there

        if self._fabric.place(source) is not None:
            put(self._fabric.view(source, piece.offset, piece.size))
        else:
            blob = np.empty(piece.size, np.uint8)  # not its place: the era may end before all is there
            self._fabric.fetch(source, piece.offset, blob, lambda: put(blob))
