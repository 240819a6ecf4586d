"""Where a key would stand in a sorted list.

As `numpy.searchsorted`, which takes half a second to compile in every process that meets it first.
"""

from numba import njit


@njit(nogil=True, cache=True)
def first_from(keys, start, least):
    """The first place, `start` or later, of a key that is `least` or larger; keys (n,) ascend from `start` on."""
    low, high = start, keys.size
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low
