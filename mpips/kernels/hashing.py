"""Hashes of numbers and of bytes: the same on every machine, in every process."""

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


@njit(nogil=True, cache=True)
def mix64(x):
    """Scatter one uint64 over all 64 bits, one to one.

    Source: the finaliser of splitmix64 (Steele, Lea and Flood 2014; Stafford's variant 13).
    """
    x = np.uint64(x)
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


@njit(nogil=True, cache=True)
def hash_bytes(text, start, stop, seed):
    """Hash the bytes text[start:stop] (uint8) to one uint64; `seed` chooses the function.

    Eight bytes at a time; the last word holds at most seven, and their number, so up to seven bytes never collide.
    """
    state = np.uint64(seed) * _GOLDEN
    word = np.uint64(0)
    shift = np.uint64(0)
    for p in range(start, stop):
        word |= np.uint64(text[p]) << shift
        shift += np.uint64(8)
        if shift == np.uint64(64):
            state = mix64(state ^ word) + _GOLDEN
            word = np.uint64(0)
            shift = np.uint64(0)
    return mix64(state ^ word ^ np.uint64(stop - start) << np.uint64(56))
