"""Rows as a reader gives them: labels, and features by their keys."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpips.kernels.localise import gather_rows


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a file.

    Attributes
    ----------
    labels : float32[n]
        0 or 1.
    numbers : int64[n]
        The number of each row in its file, from 0.
    indptr : int64[n + 1]
        Row i has the features indptr[i]:indptr[i + 1].
    keys : uint64[nnz]
    values : float32[nnz], or of size 0 when all are 1
    """

    labels: NDArray[np.float32]
    numbers: NDArray[np.int64]
    indptr: NDArray[np.int64]
    keys: NDArray[np.uint64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return self.labels.size

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        return sum(array.nbytes for array in (self.labels, self.numbers, self.indptr, self.keys, self.values))

    def take(self, order: NDArray[np.int64]) -> "Rows":
        """The rows `order`, in that order."""
        sizes = self.indptr[order + 1] - self.indptr[order]
        nnz = int(sizes.sum())
        indptr = np.empty(order.size + 1, np.int64)
        keys = np.empty(nnz, np.uint64)
        values = np.empty(nnz if self.values.size else 0, np.float32)
        gather_rows(self.indptr, self.keys, self.values, order, indptr, keys, values)
        return Rows(self.labels[order], self.numbers[order], indptr, keys, values)


def concatenate(blocks: list[Rows]) -> Rows:
    """The rows of all blocks, one block after another; there is at least one."""
    starts = np.cumsum([0] + [block.keys.size for block in blocks])
    ones = any(
        block.values.size for block in blocks
    )  # where one block has values, those that are all 1 are written out
    values = [
        block.values if block.values.size or not ones else np.ones(block.keys.size, np.float32) for block in blocks
    ]
    indptr = [block.indptr[:-1] + start for block, start in zip(blocks, starts[:-1], strict=True)]
    return Rows(
        np.concatenate([block.labels for block in blocks]),
        np.concatenate([block.numbers for block in blocks]),
        np.concatenate([*indptr, starts[-1:]]),
        np.concatenate([block.keys for block in blocks]),
        np.concatenate(values),
    )
