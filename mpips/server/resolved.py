"""Where the keys of lists that come again and again lie in a sparse table, so that they are looked up once.

The filter `key_cache` keeps such lists, read-only; Li et al. 2014, section 3.4, cache them for the same reason.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MOST_KEYS = 1 << 23  # of all lists together


class Resolved:
    """The rows of key lists, as long as no shard moves. Lists used longest ago make room for new ones.

    Parameters
    ----------
    find : ``find(keys, rows) -> missing``: puts the row of each key into `rows` (n,) int64, and counts those that have
        none.
    """

    def __init__(self, find: Callable[[Array, Array], int]) -> None:
        self._find = find
        self._lists: OrderedDict[int, tuple[Array, Array]] = OrderedDict()
        self._size = 0

    def rows(self, keys: Array) -> Array | None:
        """The row of each key (n,) int64; None for a list that may still change, or when a key has no row yet."""
        if keys.flags.writeable:
            return None
        known = self._lists.get(id(keys))  # which stays this list's as long as it is kept here
        if known is not None:
            self._lists.move_to_end(id(keys))
            return known[1]
        rows = np.empty(keys.size, np.int64)
        if self._find(keys, rows):
            return None
        self._lists[id(keys)] = keys, rows
        self._size += keys.size
        while self._size > MOST_KEYS:
            self._size -= self._lists.popitem(last=False)[1][0].size
        return rows

    def forget(self) -> None:
        """A shard has moved: nothing is known any more."""
        self._lists.clear()
        self._size = 0
