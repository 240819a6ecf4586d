"""Write a libsvm file like a click log: keys with a long tail, labels from a sparse logistic model.

    python benchmarks/zipf.py --examples 1000000 --nonzeros 40 --bits 22 --out clicks.libsvm

Keys are drawn by a bounded Zipf law and scattered over [0, 2^bits); a row's keys are distinct and sorted, its
values 1. One key in eight has a weight, from a normal distribution; about a quarter of the labels are 1.
"""

import argparse
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mpips.kernels.hashing import mix64

_BLOCK = 20_000  # rows
_SCATTER = np.uint64(0x9E3779B97F4A7C15)


@njit(nogil=True, cache=True)
def _uniform(key):  # type: ignore[no-untyped-def]
    return np.float64(mix64(key) >> np.uint64(11)) * 2.0**-53


@njit(nogil=True, cache=True)
def weight_of(key):  # type: ignore[no-untyped-def]
    """The weight of a key in the true model: 0 for seven keys of eight."""
    if _uniform(key) >= 0.125:
        return 0.0
    first, second = _uniform(key + _SCATTER), _uniform(key + _SCATTER + _SCATTER)
    return np.sqrt(-2.0 * np.log(1.0 - first)) * np.cos(2.0 * np.pi * second)


@njit(nogil=True, cache=True)
def draw_rows(rows, nonzeros, bits, exponent, seed, keys, labels):  # type: ignore[no-untyped-def]
    """Fill keys (uint64[rows, nonzeros], increasing in a row) and labels (uint8[rows], 0 or 1)."""
    state = mix64(np.uint64(seed) + np.uint64(1))
    mask = np.uint64((1 << bits) - 1)
    power = 1.0 - exponent
    tail = (2.0**bits + 1.0) ** power - 1.0
    for row in range(rows):
        size = 0
        score = -3.0
        while size < nonzeros:
            state += _SCATTER
            rank = np.uint64((1.0 + tail * _uniform(state)) ** (1.0 / power) - 1.0)
            key = (rank * _SCATTER + np.uint64(12345)) & mask
            at = size
            while at > 0 and keys[row, at - 1] > key:
                at -= 1
            if at > 0 and keys[row, at - 1] == key:
                continue
            for i in range(size, at, -1):
                keys[row, i] = keys[row, i - 1]
            keys[row, at] = key
            size += 1
            score += weight_of(key)
        state += _SCATTER
        labels[row] = _uniform(state) < 1.0 / (1.0 + np.exp(-score))


@njit(nogil=True, cache=True)
def write_rows(keys, labels, out):  # type: ignore[no-untyped-def]
    """Write rows as libsvm text into `out` (uint8); the number of bytes."""
    at = 0
    for row in range(keys.shape[0]):
        out[at] = 48 + labels[row]
        at += 1
        for key in keys[row]:
            digits = 1
            while digits < 20 and key >= np.uint64(10) ** np.uint64(digits):
                digits += 1
            rest = np.int64(key)
            for i in range(digits, 0, -1):
                out[at + i] = 48 + rest % 10
                rest //= 10
            out[at] = 32
            out[at + digits + 1] = 58
            out[at + digits + 2] = 49
            at += digits + 3
        out[at] = 10
        at += 1
    return at


def write(path: Path, examples: int, nonzeros: int, bits: int, exponent: float = 1.1, seed: int = 1) -> int:
    """Write the file; its number of bytes. The same arguments give the same bytes."""
    written = 0
    out = np.empty(_BLOCK * (2 + nonzeros * (len(str(1 << bits)) + 3)), np.uint8)
    with path.open("wb") as file:
        for start in range(0, examples, _BLOCK):
            rows = min(_BLOCK, examples - start)
            keys: NDArray[np.uint64] = np.empty((rows, nonzeros), np.uint64)
            labels = np.empty(rows, np.uint8)
            draw_rows(rows, nonzeros, bits, exponent, np.uint64(seed + (start << 20)), keys, labels)
            written += file.write(out[: write_rows(keys, labels, out)].data)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--nonzeros", type=int, default=40)
    parser.add_argument("--bits", type=int, default=22, help="keys are below 2^bits")
    parser.add_argument("--exponent", type=float, default=1.1, help="of the Zipf law")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.nonzeros > 1 << arguments.bits >> 1:
        parser.error("--nonzeros must be at most half of 2^bits")
    write(
        arguments.out,
        *(getattr(arguments, name) for name in ("examples", "nonzeros", "bits", "exponent", "seed")),
    )
