"""The built-in shard functions: ``f(keys, values, state, argument) -> reply`` over the rows of one shard.

Those that write reply with how many values they have changed. Sums are kept in float64 whatever the table's dtype.
"""

import numpy as np
from numba import njit

from mpips.kernels.header import VERSION
from mpips.kernels.memory import release

TOP = np.dtype([("key", np.uint64), ("value", np.float64)])


@njit(nogil=True, cache=True)
def turn(words, header):
    """Begin to write the shard whose header is at a word, or end it: its version becomes odd, or even again."""
    release()
    words[header + VERSION] += 1
    release()


# --- those that read ------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def sum_of_squares(keys, values, state, argument):
    """Σv²."""
    total = 0.0
    for value in values.flat:
        total += np.float64(value) * value
    return total


@njit(nogil=True, cache=True)
def sum_of_absolute_values(keys, values, state, argument):
    """Σ|v|."""
    total = 0.0
    for value in values.flat:
        total += abs(value)
    return total


@njit(nogil=True, cache=True)
def largest_absolute_value(keys, values, state, argument):
    """The largest |v|, 0 without any."""
    largest = 0.0
    for value in values.flat:
        largest = max(largest, abs(value))
    return largest


@njit(nogil=True, cache=True)
def nonzeros(keys, values, state, argument):
    """How many values are not zero."""
    found = 0
    for value in values.flat:
        found += value != 0
    return found


@njit(nogil=True, cache=True)
def column_sums(keys, values, state, argument):
    """(width,) float64: the sum of each column."""
    sums = np.zeros(values.shape[1])
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            sums[j] += values[i, j]
    return sums


@njit(nogil=True, cache=True)
def dot(keys, values, state, argument):
    """Inner product, in float64, of the values with an argument of a number for each."""
    total = 0.0
    for at, value in enumerate(values.flat):
        total += np.float64(value) * argument[at]
    return total


@njit(nogil=True, cache=True)
def _sink(heap, at, size, keys):
    """Let the row at a place of a heap of rows sink until none below it is smaller; the smallest is on top."""
    while 2 * at + 1 < heap.size:
        child = 2 * at + 1
        if child + 1 < heap.size and _smaller(heap[child + 1], heap[child], size, keys):
            child += 1
        if _smaller(heap[at], heap[child], size, keys):
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@njit(nogil=True, cache=True)
def _smaller(row, other, size, keys):
    """Whether a row comes after another among the largest: equally large ones are in the order of their keys."""
    return size[row] < size[other] or (size[row] == size[other] and keys[row] > keys[other])


@njit(nogil=True, cache=True)
def top_k(keys, values, state, argument):
    """(≤ k,) records of key (uint64) and value (float64): the rows of the k largest absolute values, in any order;
    argument [k].

    Of a row with several values the largest counts; of rows that are equally large the smallest keys.
    """
    if argument.size != 1 or not argument[0] >= 0:
        raise ValueError("its argument must be [k], with k not negative")
    n, width = values.shape
    best = np.zeros(n)
    for i in range(n):
        for j in range(width):
            if abs(values[i, j]) > abs(best[i]):
                best[i] = values[i, j]
    size = np.abs(best)
    k = n if argument[0] > n else int(argument[0])
    heap = np.arange(k)
    for at in range(k // 2 - 1, -1, -1):
        _sink(heap, at, size, keys)
    for row in range(k, n):
        if k > 0 and _smaller(heap[0], row, size, keys):
            heap[0] = row
            _sink(heap, 0, size, keys)
    top = np.empty(k, TOP)
    for i in range(k):
        top[i].key = keys[heap[i]]
        top[i].value = best[heap[i]]
    return top


@njit(nogil=True, cache=True)
def above(keys, values, state, argument):
    """(n,) uint64: the keys with a value whose state in a slot is larger than a threshold; argument [slot, threshold].

    With rules that keep how far a value is from its optimality condition, these are the keys that violate it.
    """
    if argument.size != 2:
        raise ValueError("its argument must be [slot, threshold]")
    if not 0 <= argument[0] < state.shape[2]:
        raise ValueError("its argument names a slot that the table's rule does not keep")
    slot = int(argument[0])
    found = np.empty(keys.size, np.uint64)
    n = 0
    for i in range(keys.size):
        for j in range(values.shape[1]):
            if state[i, j, slot] > argument[1]:
                found[n] = keys[i]
                n += 1
                break
    return found[:n].copy()


# --- those that write -----------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _replace(values, i, j, value):
    """Whether the value is another one, as the table's dtype has it."""
    before = values[i, j]
    values[i, j] = value
    return values[i, j] != before


@njit(nogil=True, cache=True)
def scale(keys, values, state, argument):
    """v ← factor·v; argument [factor]."""
    if argument.size != 1:
        raise ValueError("its argument must be [factor]")
    changed = 0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            changed += _replace(values, i, j, values[i, j] * argument[0])
    return changed


@njit(nogil=True, cache=True)
def fill(keys, values, state, argument):
    """v ← value; argument [value]. In a sparse table: of the keys that it has."""
    if argument.size != 1:
        raise ValueError("its argument must be [value]")
    changed = 0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            changed += _replace(values, i, j, argument[0])
    return changed


@njit(nogil=True, cache=True)
def clip(keys, values, state, argument):
    """v ← the nearest number within [least, largest]; argument [least, largest]."""
    if argument.size != 2:
        raise ValueError("its argument must be [least, largest]")
    changed = 0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            changed += _replace(values, i, j, min(max(values[i, j], argument[0]), argument[1]))
    return changed


@njit(nogil=True, cache=True)
def soft_threshold(keys, values, state, argument):
    """v ← sign(v)·max(|v| − λ, 0), the proximal operator of λ‖·‖₁; argument [λ]."""
    if argument.size != 1:
        raise ValueError("its argument must be [lambda]")
    changed = 0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            left = abs(values[i, j]) - argument[0]
            changed += _replace(values, i, j, np.sign(values[i, j]) * left if left > 0.0 else 0.0)
    return changed


@njit(nogil=True, cache=True)
def shrink(keys, values, state, argument):
    """v ← v / (1 + λ), the proximal operator of ½λ‖·‖²; argument [λ]."""
    if argument.size != 1:
        raise ValueError("its argument must be [lambda]")
    changed = 0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            changed += _replace(values, i, j, values[i, j] / (1.0 + argument[0]))
    return changed


@njit(nogil=True, cache=True)
def hard_threshold(keys, values, state, argument):
    """v ← 0 where |v| < threshold; argument [threshold]."""
    if argument.size != 1:
        raise ValueError("its argument must be [threshold]")
    changed = 0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            if abs(values[i, j]) < argument[0]:
                changed += _replace(values, i, j, 0.0)
    return changed
