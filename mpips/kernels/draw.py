"""Random numbers by their place: whoever draws them draws the same."""

import numpy as np
from numba import njit

from mpips.kernels.hashing import mix64

_OF_2_TO_53 = 1.0 / (1 << 53)


@njit(nogil=True, cache=True)
def draw(values, first, deviation, seed):
    """Fill rows (n, columns), of which the first has the number `first`, with normally distributed numbers.

    Source: Box and Muller 1958.
    """
    start = mix64(np.uint64(seed))
    for i in range(values.shape[0]):
        row = mix64(start + np.uint64(first + i))
        for j in range(values.shape[1]):
            # in (0, 1], so that its logarithm is finite
            one = (np.float64(mix64(row + np.uint64(2 * j)) >> np.uint64(11)) + 1.0) * _OF_2_TO_53
            other = np.float64(mix64(row + np.uint64(2 * j + 1)) >> np.uint64(11)) * _OF_2_TO_53
            values[i, j] = deviation * np.sqrt(-2.0 * np.log(one)) * np.cos(2.0 * np.pi * other)
