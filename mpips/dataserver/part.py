"""What a data server needs of a part of the data, whatever is in it."""

from typing import Any, Protocol

import numpy as np

from mpips.dataserver.dictionary import Dictionary


class Part(Protocol):
    """The batches of a part; training batches come first.

    Attributes
    ----------
    train, test : number of training and of test batches.
    train_rows, test_rows, skipped : number of rows, and of malformed ones that were left out.
    features : rows that a dense table of the features of this part needs; of images, the number of their classes.
    dictionary : the names of the features of this part, if they have any; the keys of the batches are its keys.
    lasting : whether a batch is the same in every epoch.
    """

    train: int
    test: int
    train_rows: int
    test_rows: int
    skipped: int
    features: int
    dictionary: Dictionary | None
    lasting: bool

    def size(self, batch: int) -> int:
        """Bytes of a batch's blob."""

    def read(self, batch: int, epoch: int, out: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Write the blob that a batch has in an epoch to the start of `out` (uint8, contiguous).

        Raises
        ------
        DataError
            when it can't be had.
        """

    def close(self) -> None:
        """Nothing more is read."""
