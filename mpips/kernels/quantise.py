"""Fixed point of one to four bytes a value, a scale for each column, rounded up or down at random without bias.

The number q of steps is written as q + levels, and by planes: first the lowest byte of all values, then the next. Bytes
of like significance lie together, which is what a compressor wants.
"""

import numpy as np
from numba import njit

from mpips.kernels.select import uniform

_LEAST = 5e-324
_WITHIN = 1 - 2.0**-52  # levels·step must not round to more than the largest value, which may be the dtype's


@njit(nogil=True, cache=True)
def steps_of(values, carried, places, levels, steps):
    """Set the step of each column (width,) float64 so that the largest magnitude is `levels` steps.

    Parameters
    ----------
    values : (n, width).
    carried, places : (m, width) rounding errors to add, and the row (n,) int64 of each; `places` of size 0: none.

    Returns
    -------
    bool
        whether all values are finite.
    """
    n, width = values.shape
    steps[:] = 0
    finite = True
    for i in range(n):
        for j in range(width):
            value = np.float64(values[i, j])
            if places.size > 0:
                value += carried[places[i], j]
            finite &= np.isfinite(value)
            steps[j] = max(steps[j], abs(value))
    for j in range(width):
        steps[j] = max(steps[j] / levels * _WITHIN, _LEAST)
    return finite


@njit(nogil=True, cache=True)
def to_steps(values, carried, places, levels, steps, counter, planes):
    """Round to whole steps, by the random numbers from `counter` on; the errors become what is carried.

    `planes` (bytes, n·width) uint8 is filled.
    """
    n, width = values.shape
    for i in range(n):
        for j in range(width):
            at = i * width + j
            value = np.float64(values[i, j])
            if places.size > 0:
                value += carried[places[i], j]
            whole = np.floor(value / steps[j] + uniform(counter + np.uint64(at)))
            whole = min(max(whole, -levels), levels)
            if places.size > 0:
                carried[places[i], j] = value - whole * steps[j]
            code = np.int64(whole + levels)
            for byte in range(planes.shape[0]):
                planes[byte, at] = (code >> (8 * byte)) & 0xFF


@njit(nogil=True, cache=True)
def from_steps(planes, levels, steps, values):
    """Fill `values` (n, width) from `planes` (bytes, n·width)."""
    n, width = values.shape
    for i in range(n):
        for j in range(width):
            code = np.int64(0)
            for byte in range(planes.shape[0]):
                code |= np.int64(planes[byte, i * width + j]) << (8 * byte)
            values[i, j] = (code - levels) * steps[j]
