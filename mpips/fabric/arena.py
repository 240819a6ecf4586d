"""Hands out the bytes of one rank's arena."""

import bisect

from mpips.errors import Error

ALIGN = 64


class ArenaFull(Error, MemoryError):
    """No free stretch of the arena is long enough."""


class Allocator:
    """First fit over a sorted list of free stretches; neighbours are joined again when freed.

    Low offsets are preferred, so a steady load keeps to the same pages: fresh ones are slow to touch.

    Parameters
    ----------
    size : bytes of the arena.
    remedy : what the user can do when it is full; it ends the error's text.
    """

    def __init__(self, size: int, remedy: str = "") -> None:
        self.size = size
        self.used = 0
        self._remedy = remedy
        self._starts = [0]
        self._sizes = [size & -ALIGN]
        self._taken: dict[int, int] = {}
        self._first = 0
        self._kept: set[int] = set()
        self._given_back: set[int] = set()  # of those that are kept

    def allocate(self, size: int) -> int:
        """Offset (a multiple of 64) of `size` fresh bytes; their content is whatever was there.

        Raises
        ------
        ArenaFull
            when no stretch is long enough.
        """
        size = max(ALIGN, (size + ALIGN - 1) & -ALIGN)
        for i, free in enumerate(self._sizes):
            if free >= size:
                offset = self._starts[i]
                if free == size:
                    del self._starts[i], self._sizes[i]
                else:
                    self._starts[i] += size
                    self._sizes[i] -= size
                self._taken[offset] = size
                self.used += size
                return offset
        raise ArenaFull(
            f"{size:,} bytes wanted, {self.used:,} of the arena's {self.size:,} are in use"
            + (f": {self._remedy}" if self._remedy else "")
        )

    def first(self, size: int) -> None:
        """Set the first bytes of the arena aside for good; the same ones when it is asked again.

        Raises
        ------
        ArenaFull
            when the arena has less, or something else lies there.
        """
        more = ((size + ALIGN - 1) & -ALIGN) - self._first
        if more <= 0:
            return
        if self._starts[:1] != [self._first] or self._sizes[0] < more:
            raise ArenaFull(f"the first {size:,} bytes of the arena are wanted, but they are in use")
        self._starts[0] += more
        self._sizes[0] -= more
        self._first += more

    def free(self, offset: int) -> None:
        """Give back what `allocate` handed out at this offset."""
        if offset in self._kept:
            self._kept.remove(offset)
            self._given_back.add(offset)
            return
        if offset in self._given_back:
            raise KeyError(offset)
        size = self._taken.pop(offset)
        self.used -= size
        i = bisect.bisect_left(self._starts, offset)
        if i < len(self._starts) and offset + size == self._starts[i]:
            size += self._sizes[i]
            del self._starts[i], self._sizes[i]
        if i > 0 and self._starts[i - 1] + self._sizes[i - 1] == offset:
            self._sizes[i - 1] += size
        else:
            self._starts.insert(i, offset)
            self._sizes.insert(i, size)

    def keep(self) -> None:
        """Hand nothing out again that is handed out now, also when it is given back, until `release`: someone who may
        come back one day may read it then.
        """
        self._kept |= self._taken.keys() - self._given_back

    def release(self) -> None:
        """What was given back meanwhile is free."""
        self._kept.clear()
        given_back, self._given_back = self._given_back, set()
        for offset in sorted(given_back):
            self.free(offset)
