"""Changes of values since a peer was last told, in whole steps; both sides work out the same new values.

`held` (m, 2·width) has, for each key, the values that the peer has, and beside them the numbers of steps by which they
changed last; `places` (n,) int64 says which row of it belongs to each row of values (n, width).
"""

import numpy as np
from numba import njit

KINDS = 6  # of numbers, by what came before them; see `kinds_of`
_MOST = 2.0**52


@njit(nogil=True, cache=True)
def steps_of(values, held, places, absolute, spread, steps):
    """Set the least step of each column (width,) float32: `absolute`, or if that is more `spread` times the root of the
    mean square of those changes that are not zero.

    Returns
    -------
    bool
        whether that is possible: all values, and the squares of their changes, are finite.
    """
    n, width = values.shape
    fine = True
    for j in range(width):
        total, count = 0.0, 0
        for i in range(n):
            change = np.float64(values[i, j]) - held[places[i], j]
            total += change * change
            count += change != 0.0
        fine &= np.isfinite(total)
        steps[j] = max(absolute, spread * np.sqrt(total / max(count, 1)))
        fine &= np.isfinite(steps[j])
    return fine


@njit(nogil=True, cache=True)
def _step(least, relative, held):
    return max(np.float64(least), relative * abs(np.float64(held)))


@njit(nogil=True, cache=True)
def to_numbers(values, held, places, steps, relative, numbers):
    """Set how many steps each value changed by, rounded, into `numbers` (n, width) int64; whether all are small enough
    to be exact.

    A step is that of the column, or if that is more `relative` times the value held.
    """
    exact = True
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            before = held[places[i], j]
            count = np.rint((np.float64(values[i, j]) - before) / _step(steps[j], relative, before))
            exact &= abs(count) < _MOST
            numbers[i, j] = np.int64(count) if abs(count) < _MOST else 0
    return exact


@njit(nogil=True, cache=True)
def kinds_of(held, places, kinds):
    """Set what is known of each number before it comes, into `kinds` (n, width) uint8: the last one of this key, up to
    two either way, and whether the value is still zero.
    """
    width = kinds.shape[1]
    for i in range(kinds.shape[0]):
        for j in range(width):
            last = min(max(held[places[i], width + j], -2), 2)
            still = last == 0 and held[places[i], j] == 0
            kinds[i, j] = KINDS - 1 if still else last + 2


@njit(nogil=True, cache=True)
def advance(numbers, held, places, steps, relative, out):
    """Move the values held by these numbers (n, width) of steps, and copy them to `out` (n, width).

    What comes nearer to zero than half a step becomes zero.
    """
    width = numbers.shape[1]
    for i in range(numbers.shape[0]):
        for j in range(width):
            before = np.float64(held[places[i], j])
            if numbers[i, j] != 0:
                step = _step(steps[j], relative, before)
                after = before + numbers[i, j] * step
                held[places[i], j] = after if abs(after) > step / 2 else 0.0
            held[places[i], width + j] = numbers[i, j]
            out[i, j] = held[places[i], j]
