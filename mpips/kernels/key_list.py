"""A list of keys as a whole: its signature, and its differences."""

import numpy as np
from numba import njit

from mpips.kernels.hashing import mix64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(nogil=True, cache=True)
def signature(keys):
    """Hash keys (n,) uint64, with their order and number, to one uint64."""
    a, b, c, d = np.uint64(0), _GOLDEN, ~_GOLDEN, ~np.uint64(0)
    i = 0
    # four chains at once: each must wait for its last hash
    while i + 4 <= keys.size:
        a = mix64(a ^ keys[i]) + _GOLDEN
        b = mix64(b ^ keys[i + 1]) + _GOLDEN
        c = mix64(c ^ keys[i + 2]) + _GOLDEN
        d = mix64(d ^ keys[i + 3]) + _GOLDEN
        i += 4
    while i < keys.size:
        a = mix64(a ^ keys[i]) + _GOLDEN
        i += 1
    return mix64(mix64(mix64(mix64(a) ^ b) ^ c) ^ d)


@njit(nogil=True, cache=True)
def to_differences(keys, out):
    """Replace each key (n,) uint64 by what it is more than the one before, modulo 2^64."""
    before = np.uint64(0)
    for i in range(keys.size):
        out[i] = keys[i] - before
        before = keys[i]


@njit(nogil=True, cache=True)
def from_differences(keys):
    """Undo `to_differences` in place."""
    for i in range(1, keys.size):
        keys[i] += keys[i - 1]
