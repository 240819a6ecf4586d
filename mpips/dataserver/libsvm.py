"""The libsvm format: `label key:value key:value … # comment`, a row a line."""

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.reader import Faults
from mpips.dataserver.rows import Rows
from mpips.dataserver.text import Chunk
from mpips.kernels.libsvm import count_libsvm, parse_libsvm


def count_rows(text: NDArray[np.uint8], limit: int) -> tuple[int, int]:
    """Number of rows of a text, and where the last whole line ends."""
    rows, end = count_libsvm(text)
    return rows, end


class LibsvmReader:
    """Reads libsvm rows. Their keys are taken as they are, in any order; a key that is there twice is malformed."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._keys = np.empty(0, np.uint64)
        self._values = np.empty(0, np.float32)

    def read(self, chunk: Chunk) -> tuple[Rows, int]:
        """The well-formed rows of a chunk, and the number of malformed ones that were left out."""
        most = chunk.text.size // 4 + 1  # the shortest feature is " 1:1"
        if self._keys.size < most:
            self._keys = np.empty(most, np.uint64)
            self._values = np.empty(most, np.float32)
        labels = np.empty(chunk.rows, np.float32)
        numbers = np.empty(chunk.rows, np.int64)
        indptr = np.empty(chunk.rows + 1, np.int64)
        fault = np.zeros(6, np.int64)
        n = parse_libsvm(chunk.text, labels, numbers, indptr, self._keys, self._values, fault)
        malformed = self._faults.count(chunk, fault)
        keys, values = self._keys[: indptr[n]].copy(), self._values[: indptr[n]].copy()
        return Rows(labels[:n], numbers[:n] + chunk.first_row, indptr[: n + 1], keys, values), malformed
