"""Rows in libsvm text (see `mpips.kernels.parse` for what a text and a fault are)."""

import numpy as np
from numba import njit

from mpips.comparisons import IS_ONE
from mpips.kernels.parse import (
    COLON,
    HASH,
    KEY_TOO_LARGE,
    NEWLINE,
    NOT_A_LABEL,
    NOT_A_NUMBER,
    NOT_A_PAIR,
    REPEATED_KEY,
    TEN,
    ZERO,
    is_blank,
    label_of,
    parse_number,
    report,
)

_LARGEST = np.uint64(2**64 - 1)


@njit(nogil=True, cache=True)
def _ends_token(byte):
    return is_blank(byte) or byte in (NEWLINE, HASH)


@njit(nogil=True, cache=True)
def _token_end(text, p):
    while not _ends_token(text[p]):
        p += 1
    return p


@njit(nogil=True, cache=True)
def count_libsvm(text):
    """Number of rows of a text, and where its last whole line ends; a blank line or a comment is no row.

    The text need not end with a newline.
    """
    end = text.size
    while end > 0 and text[end - 1] != NEWLINE:
        end -= 1
    rows = 0
    p = 0
    while p < end:
        while is_blank(text[p]):
            p += 1
        rows += text[p] != NEWLINE and text[p] != HASH
        while text[p] != NEWLINE:
            p += 1
        p += 1
    return rows, end


@njit(nogil=True, cache=True)
def _sort_row(keys, values, start, stop):
    """Heap sort keys[start:stop], and values along; False when a key is there twice."""
    n = stop - start
    for step in range(n + n // 2):
        if step < n // 2:
            root = n // 2 - 1 - step
            size = n
        else:
            root = 0
            size = n - 1 - (step - n // 2)
            keys[start], keys[start + size] = keys[start + size], keys[start]
            values[start], values[start + size] = values[start + size], values[start]
        while 2 * root + 1 < size:
            child = 2 * root + 1
            if child + 1 < size and keys[start + child + 1] > keys[start + child]:
                child += 1
            a, b = start + root, start + child
            if keys[a] >= keys[b]:
                break
            keys[a], keys[b] = keys[b], keys[a]
            values[a], values[b] = values[b], values[a]
            root = child
    repeated = 0
    for i in range(start + 1, stop):
        repeated += keys[i] == keys[i - 1]
    return repeated == 0


@njit(nogil=True, cache=True)
def parse_libsvm(text, labels, numbers, indptr, keys, values, fault):
    """Parse rows `label key:value key:value … # comment`; the keys of a row may come in any order.

    Parameters
    ----------
    text : uint8[size]
    labels : float32[rows]
        Out: 1 or 0; the text has 1, or 0 or -1.
    numbers : int64[rows]
        Out: the number of each row in the text, from 0; malformed rows have their number too.
    indptr : int64[rows + 1]
    keys : uint64[size // 4 + 1]
        Out: increasing within a row.
    values : float32[size // 4 + 1]
    fault : int64[6]

    Returns
    -------
    int
        Number of rows that were well formed.
    """
    p = 0
    line = -1
    row = -1
    count = 0
    nnz = 0
    indptr[0] = 0
    while p < text.size:
        line += 1
        while is_blank(text[p]):
            p += 1
        if text[p] == NEWLINE or text[p] == HASH:
            while text[p] != NEWLINE:
                p += 1
            p += 1
            continue
        row += 1
        reason = 0
        token = p
        number, p = parse_number(text, p)
        label = label_of(number, IS_ONE, 0.0)
        if p == token or not _ends_token(text[p]):
            reason = NOT_A_NUMBER
        elif label < 0:
            reason = NOT_A_LABEL
        at = nnz
        increasing = True
        while reason == 0:
            while is_blank(text[p]):
                p += 1
            if text[p] == NEWLINE or text[p] == HASH:
                break
            token = p
            key = np.uint64(0)
            large = False
            while True:
                digit = np.int64(text[p]) - ZERO
                if digit < 0 or digit > 9:
                    break
                if p - token >= 19 and key > (_LARGEST - np.uint64(digit)) // TEN:
                    large = True
                key = key * TEN + np.uint64(digit)
                p += 1
            if p == token or text[p] != COLON:
                reason = NOT_A_PAIR
            elif large:
                reason = KEY_TOO_LARGE
            else:
                p += 1
                digit = np.int64(text[p]) - ZERO
                if 0 <= digit <= 9 and _ends_token(text[p + 1]):
                    values[at] = digit
                    p += 1
                else:
                    begin = p
                    number, p = parse_number(text, p)
                    values[at] = number
                    if p == begin or not _ends_token(text[p]):
                        reason = NOT_A_NUMBER
                keys[at] = key
                increasing &= at == nnz or key > keys[at - 1]
                at += 1
        if reason == 0 and not increasing and not _sort_row(keys, values, nnz, at):
            reason = REPEATED_KEY
        if reason != 0:
            report(fault, reason, line, 0, token, _token_end(text, token))
        else:
            labels[count] = label
            numbers[count] = row
            nnz = at
            count += 1
            indptr[count] = nnz
        while text[p] != NEWLINE:
            p += 1
        p += 1
    return count
