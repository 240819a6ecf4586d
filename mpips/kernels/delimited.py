"""The cells of delimited text (see `mpips.kernels.parse` for what a text and a fault are)."""

import numpy as np
from numba import njit

from mpips.kernels.parse import (
    AFTER_QUOTE,
    COLUMN_COUNT,
    MINUS,
    NEWLINE,
    NOT_A_LABEL,
    NOT_A_NUMBER,
    NOT_AN_INTEGER,
    RETURN,
    UNCLOSED_QUOTE,
    ZERO,
    is_blank,
    label_of,
    parse_number,
    report,
)


@njit(nogil=True, cache=True)
def count_records(text, delimiter, quote, limit):
    """Number of records in delimited text, at most `limit`, and where the last of them ends.

    A quoted cell may hold newlines; an empty line is no record. `quote` is -1 where nothing is quoted.
    """
    records = 0
    end = 0
    p = 0
    blank = True
    at_start = True
    while p < text.size and records < limit:
        byte = text[p]
        p += 1
        if byte == NEWLINE:
            records += not blank
            blank = True
            at_start = True
            end = p
        elif byte == delimiter:
            blank = False
            at_start = True
        elif byte == quote and at_start:
            blank = False
            at_start = False
            while p < text.size:
                if text[p] == quote:
                    p += 1
                    if p >= text.size or text[p] != quote:
                        break
                p += 1
        else:
            blank &= byte == RETURN and p < text.size and text[p] == NEWLINE
            at_start = False
    return records, end


@njit(nogil=True, cache=True)
def _bucket_integer(text, start, stop):
    """Write over an integer v its bucket, v itself up to 2 and 2 + floor(log(v)^2) above; the new stop.

    The bucket is never longer than the integer. -1 where there is no integer of up to 18 digits.
    """
    p = start + (text[start] == MINUS)
    if p == stop or stop - p > 18:
        return -1
    value = 0
    for q in range(p, stop):
        if not ZERO <= text[q] < ZERO + 10:
            return -1
        value = value * 10 + int(text[q]) - ZERO
    if value == 0:
        p = start
    elif p == start and value > 2:
        value = 2 + int(np.log(value) ** 2)
    size = 1
    while value >= 10**size:
        size += 1
    for q in range(p + size - 1, p - 1, -1):
        text[q] = ZERO + value % 10
        value //= 10
    return p + size


@njit(nogil=True, cache=True)
def _cell_at(text, p, delimiter, quote):
    """The cell at p: its start and stop, the position of what ends it, and what is wrong with it, or 0."""
    reason = 0
    start = p
    if text[p] != quote:
        while text[p] != delimiter and text[p] != NEWLINE:
            p += 1
        stop = p
        if text[p] == NEWLINE and stop > start and text[stop - 1] == RETURN:
            stop -= 1
        return start, stop, p, reason
    p += 1
    start = p
    stop = p
    while text[p] != quote or text[p + 1] == quote:
        if p == text.size - 1:
            return start, stop, p, UNCLOSED_QUOTE
        p += text[p] == quote
        text[stop] = text[p]
        stop += 1
        p += 1
    text[stop:p] = quote  # no newline is left behind that would be counted twice
    p += 1
    if text[p] == RETURN and text[p + 1] == NEWLINE:
        p += 1
    while text[p] != delimiter and text[p] != NEWLINE:
        reason = AFTER_QUOTE
        p += 1
    return start, stop, p, reason


@njit(nogil=True, cache=True)
def _label_in(text, start, stop, operator, threshold):
    """The label that the number in a cell gives, and what is wrong with it, or 0."""
    while start < stop and is_blank(text[start]):
        start += 1
    while stop > start and is_blank(text[stop - 1]):
        stop -= 1
    number, end = parse_number(text, start)
    if end == start or end != stop:
        return np.float32(0.0), NOT_A_NUMBER
    label = label_of(number, operator, threshold)
    return label, (NOT_A_LABEL if label < 0 else 0)


@njit(nogil=True, cache=True)
def split_cells(text, delimiter, quote, slots, integers, label, operator, threshold, spans, labels, numbers, fault):
    """Find the cells of the wanted columns in delimited text (RFC 4180), and the labels.

    A quote inside an unquoted cell stands for itself. In a quoted cell, double quotes are made single, in place.

    Parameters
    ----------
    text : uint8[size]
    delimiter, quote : int
        Bytes; a quote of -1: nothing is quoted.
    slots : int32[columns]
        For every column its slot in `spans`, -1 where it is not wanted.
    integers : bool[slots]
        Slots of integers, replaced in place by their buckets unless empty.
    label : int
        The column of the label, `label_of(number, operator, threshold)`.
    spans : int32[rows, slots, 2]
        Out: start and stop of every wanted cell.
    labels : float32[rows]
    numbers : int64[rows]
        Out: the number of each row in the text, from 0; malformed rows have their number too.
    fault : int64[6]

    Returns
    -------
    int
        Number of rows that were well formed.
    """
    p = 0
    line = 0
    row = -1
    count = 0
    while p < text.size:
        if text[p] == NEWLINE or (text[p] == RETURN and text[p + 1] == NEWLINE):
            p += 1 + (text[p] == RETURN)
            line += 1
            continue
        row += 1
        first = p
        reason = 0
        bad = 0, 0, 0  # column, start, stop
        column = 0
        while True:
            start, stop, p, wrong = _cell_at(text, p, delimiter, quote)
            if wrong == 0 and column == label:
                labels[count], wrong = _label_in(text, start, stop, operator, threshold)
            if wrong == 0 and column < slots.size and slots[column] >= 0:
                slot = slots[column]
                if integers[slot] and stop > start:
                    bucket = _bucket_integer(text, start, stop)
                    if bucket < 0:
                        wrong = NOT_AN_INTEGER
                    else:
                        stop = bucket
                spans[count, slot, 0] = start
                spans[count, slot, 1] = stop
            if reason == 0 and wrong != 0:
                reason = wrong
                bad = column, start, stop
            column += 1
            if text[p] == NEWLINE:
                break
            p += 1
        p += 1
        if column != slots.size and reason != UNCLOSED_QUOTE:
            reason = COLUMN_COUNT
            bad = column, first, first
        if reason == 0:
            numbers[count] = row
            count += 1
        else:
            report(fault, reason, line, bad[0], bad[1], bad[2])
        for q in range(first, p):
            line += text[q] == NEWLINE
    return count
