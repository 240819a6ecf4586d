"""An adaptive binary range coder: numbers in few more bits than their entropy.

A whole number is coded as its number of bits, counted one by one, its sign, and its lower bits. How likely each of
these decisions is either way is learned on the way, by encoder and decoder alike and anew in every packet. The interval
is kept as in Mahoney 2009, "Data compression programs: lpaq"; range coding: Martin 1979.

One function codes and decodes, so that the two agree: `coder` is int64 [low, high, code, at, decodes], and a decision
that is to be coded is an argument of what returns it.
"""

import numpy as np
from numba import njit

_LOW, _HIGH, _CODE, _AT, _DECODES = range(5)
_TOP = 0xFF000000
_ALL = 0xFFFFFFFF
_EVEN = 1 << 15  # odds are parts of 2^16
_MEMORY = 60  # earlier decisions that weigh in the odds of the next

_MOST_BITS = 62
_ZERO = 0  # whether a number is not zero: by how many of the two before it were not
_SIGN = 3
_LENGTH = 4  # whether it has another bit, by how many it has
_SECOND = _LENGTH + _MOST_BITS + 1  # the bit below the highest
_CONTEXTS = _SECOND + _MOST_BITS + 1


@njit(nogil=True, cache=True)
def _start(data, decodes):
    coder = np.array([0, _ALL, 0, 0, decodes], np.int64)
    if decodes:
        for _ in range(4):
            _shift_in(coder, data)
    return coder


@njit(nogil=True, cache=True)
def _shift_in(coder, data):
    """Read a byte; zeros follow the last."""
    at = coder[_AT]
    byte = np.int64(data[at]) if at < data.size else np.int64(0)
    coder[_CODE] = (coder[_CODE] << 8) & _ALL | byte
    coder[_AT] += 1


@njit(nogil=True, cache=True)
def _shift_out(coder, data):
    """Write a byte, or only count it when there is no room."""
    if coder[_AT] < data.size:
        data[coder[_AT]] = coder[_HIGH] >> 24
    coder[_AT] += 1


@njit(nogil=True, cache=True)
def _split(coder, data, odds, bit):
    """Code a decision, or decode it: the lower part of the interval, `odds` of 2^16, is for 1."""
    low, high = coder[_LOW], coder[_HIGH]
    middle = low + ((high - low) * odds >> 16)
    if coder[_DECODES]:
        bit = np.int64(coder[_CODE] <= middle)
    if bit:
        high = middle
    else:
        low = middle + 1
    coder[_LOW], coder[_HIGH] = low, high
    while (low ^ high) & _TOP == 0:
        if coder[_DECODES]:
            _shift_in(coder, data)
        else:
            _shift_out(coder, data)
        low, high = (low << 8) & _ALL, (high << 8) & _ALL | 0xFF
        coder[_LOW], coder[_HIGH] = low, high
    return bit


@njit(nogil=True, cache=True)
def _learned(coder, data, model, context, bit):
    """The same by the odds of a context, `model` (contexts, 2) int64 [odds, decisions so far], which learn from it."""
    odds, known = model[context]
    bit = _split(coder, data, odds, bit)
    change = ((1 << 16) - odds if bit else -odds) // (known + 2)
    model[context, 0] = min(max(odds + change, 1), (1 << 16) - 1)
    model[context, 1] = min(known + 1, _MEMORY)
    return bit


@njit(nogil=True, cache=True)
def _model(contexts):
    model = np.empty((contexts, 2), np.int64)
    model[:, 0] = _EVEN
    model[:, 1] = 0
    return model


@njit(nogil=True, cache=True)
def _bits(magnitude):
    count = 0
    while magnitude >> count:
        count += 1
    return count


@njit(nogil=True, cache=True)
def _number(coder, data, model, near, number):
    """Code a number, or decode it; `near` is how many of the two before it were not zero."""
    magnitude = abs(number)
    bits = _bits(magnitude)
    if not _learned(coder, data, model, _ZERO + near, bits > 0):
        return np.int64(0)
    length = 1
    while length < _MOST_BITS and _learned(coder, data, model, _LENGTH + length, bits > length):
        length += 1
    negative = _learned(coder, data, model, _SIGN, number < 0)
    decoded = np.int64(1)
    for at in range(length - 2, -1, -1):
        bit = (magnitude >> at) & 1
        if at == length - 2:
            bit = _learned(coder, data, model, _SECOND + length, bit)
        else:
            bit = _split(coder, data, _EVEN, bit)
        decoded = decoded << 1 | bit
    return -decoded if negative else decoded


@njit(nogil=True, cache=True)
def _run(numbers, kinds, count, data, decodes):
    coder = _start(data, decodes)
    for j in range(numbers.shape[1]):
        model = _model(count * _CONTEXTS)
        last = before = np.int64(0)
        for i in range(numbers.shape[0]):
            first = kinds[i, j] * _CONTEXTS
            number = _number(coder, data, model[first : first + _CONTEXTS], last + before, numbers[i, j])
            numbers[i, j] = number
            last, before = np.int64(number != 0), last
    if not decodes:
        _shift_out(coder, data)  # with zeros after it, a number within the interval
    return coder[_AT]


@njit(nogil=True, cache=True)
def encode_numbers(numbers, kinds, count, data):
    """Code numbers (n, width) int64 of up to 62 bits, column by column, each column by odds of its own.

    Parameters
    ----------
    kinds : (n, width) uint8, below `count`: numbers of one kind are alike, and have their own odds.
    data : (room,) uint8, filled.

    Returns
    -------
    int
        bytes used; more than there is room for when they don't fit.
    """
    return _run(numbers, kinds, count, data, 0)


@njit(nogil=True, cache=True)
def decode_numbers(data, kinds, count, numbers):
    """Fill `numbers` (n, width) int64 with what was coded as `data`."""
    numbers[:] = 0
    _run(numbers, kinds, count, data, 1)
