"""From rows in the order of a file to batches: a bounded window of rows is shuffled, then cut."""

from collections.abc import Iterator

import numpy as np

from mpips.dataserver.batch import Batch, batch_of
from mpips.dataserver.rows import Rows, concatenate


class Window:
    """Rows that wait to become batches.

    Parameters
    ----------
    batch : int
        Rows of a batch.
    random : numpy.random.Generator, optional
        Shuffles the rows; without it they keep their order.
    nbytes : int
        Memory of the window; one batch at least is held, whatever its size.
    """

    def __init__(self, batch: int, random: np.random.Generator | None, nbytes: int) -> None:
        self._batch = batch
        self._random = random
        self._limit = nbytes
        self._blocks: list[Rows] = []
        self._rows = 0
        self._nbytes = 0

    def add(self, rows: Rows) -> Iterator[Batch]:
        """Put rows into the window; the batches that this makes complete."""
        if len(rows):
            self._blocks.append(rows)
            self._rows += len(rows)
            self._nbytes += rows.nbytes
            if self._nbytes >= self._limit and self._rows >= self._batch:
                yield from self._cut(self._batch)

    def finish(self) -> Iterator[Batch]:
        """The batches of the rows that are left; the last may have fewer rows than the others."""
        if self._rows:
            yield from self._cut(1)

    def _cut(self, fewest: int) -> Iterator[Batch]:
        """Cut the rows into batches; a last one of fewer than `fewest` rows stays in the window."""
        rows = concatenate(self._blocks)
        order = np.arange(len(rows)) if self._random is None else self._random.permutation(len(rows))
        self._blocks, self._rows, self._nbytes = [], 0, 0
        for start in range(0, len(rows), self._batch):
            some = rows.take(order[start : start + self._batch])
            if len(some) < fewest:
                self._blocks, self._rows, self._nbytes = [some], len(some), some.nbytes
            else:
                yield batch_of(some)
