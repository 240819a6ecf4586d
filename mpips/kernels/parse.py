"""Text to numbers, byte by byte: what every text format shares.

A text is a uint8 array whose last byte is a newline, so that no inner loop needs a bound. A malformed row is left
out; `fault`, int64[6], counts such rows and describes the first: number of malformed rows, reason, line (from 0),
column (from 0), and start and stop of the offending text.
"""

import numpy as np
from numba import njit

from mpips.comparisons import EQUAL, GREATER, GREATER_EQUAL, LESS, LESS_EQUAL, NOT_EQUAL

NOT_A_NUMBER, NOT_A_LABEL, NOT_A_PAIR, KEY_TOO_LARGE, REPEATED_KEY = 1, 2, 3, 4, 5
COLUMN_COUNT, UNCLOSED_QUOTE, AFTER_QUOTE, NOT_AN_INTEGER = 6, 7, 8, 9

TAB, NEWLINE, RETURN, SPACE, HASH, COLON = 9, 10, 13, 32, 35, 58
PLUS, MINUS, _POINT, ZERO = 43, 45, 46, 48
_UPPER_E, _LOWER_E = 69, 101
TEN = np.uint64(10)
_FULL = np.uint64(10**18)  # a mantissa from here on takes no more digits
_LARGEST_FLOAT32 = 3.4028235677973366e38  # from here on a number rounds to infinity
_POWERS = 10.0 ** np.arange(23)


@njit(nogil=True, cache=True)
def parse_number(text, start):
    """Read a decimal number at `start`: (float64 value, position after it).

    The position is `start` where there is no number, or one that float32 cannot hold.
    """
    p = start
    negative = text[p] == MINUS
    if negative or text[p] == PLUS:
        p += 1
    mantissa = np.uint64(0)
    exponent = 0
    digits = 0
    fraction = False
    while True:
        digit = np.int64(text[p]) - ZERO
        if 0 <= digit <= 9:
            digits += 1
            if mantissa < _FULL:
                mantissa = mantissa * TEN + np.uint64(digit)
                exponent -= fraction
            else:
                exponent += not fraction
        elif text[p] == _POINT and not fraction:
            fraction = True
        else:
            break
        p += 1
    if digits == 0:
        return 0.0, start
    if text[p] == _LOWER_E or text[p] == _UPPER_E:
        q = p + 1
        down = text[q] == MINUS
        if down or text[q] == PLUS:
            q += 1
        written = 0
        while ZERO <= text[q] < ZERO + 10:
            if written < 10_000:
                written = written * 10 + int(text[q]) - ZERO
            q += 1
            p = q
        exponent += -written if down else written
    value = float(mantissa)
    if value != 0.0 and exponent != 0:
        if -22 <= exponent < 0:
            value /= _POWERS[-exponent]
        elif 0 < exponent <= 22:
            value *= _POWERS[exponent]
        elif exponent < -300:
            value = 0.0
        else:
            value *= 10.0 ** min(exponent, 300)
    if value >= _LARGEST_FLOAT32:
        return 0.0, start
    return (-value if negative else value), p


@njit(nogil=True, cache=True)
def report(fault, reason, line, column, start, stop):
    if fault[0] == 0:
        fault[1] = reason
        fault[2] = line
        fault[3] = column
        fault[4] = start
        fault[5] = stop
    fault[0] += 1


@njit(nogil=True, cache=True)
def is_blank(byte):
    return byte in (SPACE, TAB, RETURN)


@njit(nogil=True, cache=True)
def label_of(value, operator, threshold):
    """The label of a number: 1, 0, or -1 when IS_ONE is asked of a number other than -1, 0 and 1."""
    if operator == GREATER:
        return np.float32(value > threshold)
    if operator == GREATER_EQUAL:
        return np.float32(value >= threshold)
    if operator == LESS:
        return np.float32(value < threshold)
    if operator == LESS_EQUAL:
        return np.float32(value <= threshold)
    if operator == EQUAL:
        return np.float32(value == threshold)
    if operator == NOT_EQUAL:
        return np.float32(value != threshold)
    if value == 1.0:
        return np.float32(1.0)
    return np.float32(0.0 if value == 0.0 or value == -1.0 else -1.0)
