"""State that a filter keeps for each key it has met: a row of values, found by hash; it grows."""

from typing import Any

import numpy as np

from mpips.kernels.keep import add_keys, find_keys, index_keys

Array = np.ndarray[Any, Any]

FEWEST_BITS = 6
MOST_BITS_AT_FIRST = 12


class KeyStore:
    """Create it empty.

    Parameters
    ----------
    width, dtype : of a key's row.
    rows : keys to expect; a hint.

    Attributes
    ----------
    count : how many keys it holds.
    """

    def __init__(self, width: int, dtype: str, rows: int) -> None:
        self._width = width
        self._dtype = dtype
        self._first_bits = max(FEWEST_BITS, min(MOST_BITS_AT_FIRST, (rows * 3 // 2).bit_length()))
        self.clear()

    def clear(self) -> None:
        """Forget all keys."""
        self.count = 0
        self._slots = np.full(1 << self._first_bits, -1, np.int32)
        self._keys = np.empty(self._slots.size * 2 // 3, np.uint64)
        self._rows = np.zeros((self._keys.size, self._width), self._dtype)

    @property
    def keys(self) -> Array:
        """The keys held, (count,) uint64, in the order in which they came."""
        return self._keys[: self.count]

    @property
    def rows(self) -> Array:
        """Their rows, (count, width), to read and write; of another memory once a key is added."""
        return self._rows[: self.count]

    def find(self, keys: Array) -> Array:
        """The row of every key (n,) uint64, as (n,) int64; -1 for those that are not held."""
        places = np.empty(keys.size, np.int64)
        find_keys(self._slots, self._keys, keys, places)
        return places

    def add(self, keys: Array) -> Array:
        """The row of every key; those that were not held get one of zeros."""
        places = np.empty(keys.size, np.int64)
        done, self.count = add_keys(self._slots, self._keys, self.count, keys, 0, places)
        while done < keys.size:
            self._grow()
            done, self.count = add_keys(self._slots, self._keys, self.count, keys, done, places)
        return places

    def _grow(self) -> None:
        slots = np.empty(self._slots.size * 2, np.int32)
        keys = np.empty(slots.size * 2 // 3, np.uint64)
        rows = np.zeros((keys.size, self._width), self._dtype)
        keys[: self.count] = self.keys
        rows[: self.count] = self.rows
        index_keys(slots, keys, self.count)
        self._slots, self._keys, self._rows = slots, keys, rows
