"""A hash index over keys in order of arrival: where each key's state is kept.

`held` (capacity,) uint64 has the keys, `slots` (a power of two, more than capacity) int32 their positions by hash, -1
where there is none.
"""

import numpy as np
from numba import njit

from mpips.kernels.hashing import mix64


@njit(nogil=True, cache=True)
def _slot(slots, held, key):
    """The slot where a key is, or belongs."""
    mask = np.uint64(slots.size - 1)
    at = mix64(key) & mask
    while slots[at] >= 0 and held[slots[at]] != key:
        at = (at + np.uint64(1)) & mask
    return at


@njit(nogil=True, cache=True)
def find_keys(slots, held, keys, places):
    """Put the position of every key into `places` (n,) int64, -1 for those that are not held."""
    for i in range(keys.size):
        places[i] = slots[_slot(slots, held, keys[i])]


@njit(nogil=True, cache=True)
def add_keys(slots, held, count, keys, start, places):
    """As `find_keys`, from `start` on, but hold new keys too; stops when all of `held` is used.

    Returns
    -------
    stop : how many keys have their place.
    count : how many keys are held now.
    """
    for i in range(start, keys.size):
        at = _slot(slots, held, keys[i])
        if slots[at] < 0:
            if count == held.size:
                return i, count
            held[count] = keys[i]
            slots[at] = count
            count += 1
        places[i] = slots[at]
    return keys.size, count


@njit(nogil=True, cache=True)
def index_keys(slots, held, count):
    """Fill `slots` anew for the first `count` keys of `held`."""
    slots[:] = -1
    for position in range(count):
        slots[_slot(slots, held, held[position])] = position
