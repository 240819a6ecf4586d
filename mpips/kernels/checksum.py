"""HDF5's checksum of a chunk, faster than HDF5 has it."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_BLOCK = 128  # words whose weighted sum still fits 32 bits


@njit(nogil=True, cache=True)
def _sums(words: NDArray[np.uint16]) -> tuple[np.uint64, np.uint64]:
    """The two Fletcher sums of little-endian words, modulo 65535."""
    one = np.uint64(0)
    two = np.uint64(0)
    whole = words.size // _BLOCK * _BLOCK
    for lo in range(0, whole, _BLOCK):
        plain = np.uint32(0)
        weighted = np.uint32(0)
        for j in range(_BLOCK):
            word = np.uint32(words[lo + j])
            plain += word
            weighted += np.uint32(_BLOCK - j) * word
        two = (two + np.uint64(_BLOCK) * one + weighted) % np.uint64(65535)
        one = (one + plain) % np.uint64(65535)
    for i in range(whole, words.size):
        one = (one + np.uint64(words[i])) % np.uint64(65535)
        two = (two + one) % np.uint64(65535)
    return one, two


def fletcher32(words: NDArray[np.uint16]) -> int:
    """HDF5's Fletcher-32 of little-endian 16-bit words.

    HDF5 sums big-endian words; swapping the bytes of a word multiplies it by 256 modulo 65535, so the sums
    are swapped instead. Its sums are 0 only when every word is.
    """
    one, two = (int(s) * 256 % 65535 for s in _sums(words))
    if not (one and two) and words.any():
        one, two = one or 65535, two or 65535
    return two << 16 | one
