"""What lies in a data server's arena for others to read: batches, and names of features."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from mpips.fabric import ArenaFull, Fabric

Blob = np.ndarray[Any, np.dtype[np.uint8]]
Reader = tuple[int, Hashable]


class Shelf:
    """Blobs by name. Each stays for as long as anyone reads it, and longer while there is room; then the one that was
    not read for the longest time gives way.

    A reader is a rank and its mark, such as the number of its request: it reads one blob.

    Parameters
    ----------
    fabric : whose arena it is.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._places: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()  # offset, size; the next to go first
        self._read: dict[Reader, Hashable] = {}
        self._readers: Counter[Hashable] = Counter()
        self._once: set[Hashable] = set()  # of no use when they have been read

    def __contains__(self, name: Hashable) -> bool:
        return name in self._places

    def put(self, name: Hashable, size: int, fill: Callable[[Blob], object], once: bool = False) -> bool:
        """Have `fill` write a blob of `size` bytes; False when there is no room until something is given back. One for
        `once` goes when nobody reads it any more.

        Raises
        ------
        ArenaFull
            when there is no room although nobody reads anything.
        """
        while True:
            try:
                offset = self._fabric.space.allocate(size)
                break
            except ArenaFull:
                idle = next((old for old in self._places if not self._readers[old]), None)
                if idle is None:
                    if not self._read:
                        raise
                    return False
                self._once.discard(idle)
                self._fabric.space.free(self._places.pop(idle)[0])
        try:
            fill(self._fabric.arena[offset : offset + size])
        except BaseException:
            self._fabric.space.free(offset)
            raise
        self._places[name] = offset, size
        if once:
            self._once.add(name)
        return True

    def lend(self, name: Hashable, reader: Reader) -> tuple[int, int]:
        """Offset and size of a blob that this reader may read until it gives it back; asked again, it is one reader."""
        if reader not in self._read:
            self._read[reader] = name
            self._readers[name] += 1
        self._places.move_to_end(name)
        return self._places[name]

    def give_back(self, reader: Reader) -> None:
        """This reader has read; said again, it does nothing."""
        if reader in self._read:
            name = self._read.pop(reader)
            self._readers[name] -= 1
            if not self._readers[name]:
                del self._readers[name]
                if name in self._once:
                    self._once.remove(name)
                    self._fabric.space.free(self._places.pop(name)[0])

    def forget(self, rank: int) -> None:
        """A rank will read nothing more."""
        for reader in [reader for reader in self._read if reader[0] == rank]:
            self.give_back(reader)
