"""A batch: some rows whose features are positions into their own sorted keys, in one contiguous blob."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.errors import DataError
from mpips.dataserver.rows import Rows
from mpips.kernels.localise import localise

HEADER_BYTES = 64
_MAGIC = int.from_bytes(b"mpipsB01", "little")


def _aligned(nbytes: int) -> int:
    return (nbytes + 7) & ~7


def _layout(rows: int, keys: int, features: int, values: int) -> list[tuple[str, int, int, int]]:
    """Type, first byte, last byte + 1 and size of each array of a blob; the last row ends the blob."""
    arrays = [("<u8", keys), ("<i4", rows + 1), ("<i4", features), ("<f4", values), ("<f4", rows)]
    layout = []
    start = HEADER_BYTES
    for kind, size in arrays:
        stop = start + size * int(kind[-1])
        layout.append((kind, start, stop, size))
        start = _aligned(stop)
    return layout


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """Rows of training or test data.

    Attributes
    ----------
    keys : uint64[m]
        The distinct keys of the batch, increasing.
    indptr : int32[n + 1]
        Row i has the features indptr[i]:indptr[i + 1].
    indices : int32[nnz]
        For every feature the position of its key in `keys`; hashed features of a row may share a position.
    values : float32[nnz], or of size 0 when all are 1
    labels : float32[n]
        0 or 1.
    """

    keys: NDArray[np.uint64]
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return self.labels.size

    def __repr__(self) -> str:
        return f"Batch(rows={len(self)}, keys={self.keys.size}, features={self.indices.size})"

    @staticmethod
    def nbytes_of(rows: int, keys: int, features: int, values: int) -> int:
        """Bytes of the blob of a batch with so many rows, distinct keys, features and stored values."""
        return _aligned(_layout(rows, keys, features, values)[-1][2])

    @property
    def nbytes(self) -> int:
        """Bytes of the batch's blob."""
        return self.nbytes_of(self.labels.size, self.keys.size, self.indices.size, self.values.size)

    def rows(self) -> Rows:
        """The rows with their keys in place of positions, copied."""
        numbers = np.arange(len(self))
        return Rows(
            self.labels.copy(), numbers, self.indptr.astype(np.int64), self.keys[self.indices], self.values.copy()
        )

    def pack(self, out: NDArray[np.uint8]) -> int:
        """Write the blob to the start of `out` (uint8, contiguous); its number of bytes.

        Raises
        ------
        ValueError
            `out` is smaller than `nbytes`.
        """
        nbytes = self.nbytes
        if out.size < nbytes:
            raise ValueError(f"a batch of {nbytes} bytes does not fit into {out.size}")
        header = np.zeros(8, "<u8")
        header[:6] = _MAGIC, nbytes, self.labels.size, self.keys.size, self.indices.size, self.values.size
        out[:HEADER_BYTES] = header.view(np.uint8)
        layout = _layout(self.labels.size, self.keys.size, self.indices.size, self.values.size)
        at = HEADER_BYTES
        arrays: list[NDArray[Any]] = [self.keys, self.indptr, self.indices, self.values, self.labels]
        for (kind, start, stop, _), array in zip(layout, arrays, strict=True):
            out[at:start] = 0
            out[start:stop] = array.astype(kind, copy=False).view(np.uint8)
            at = stop
        out[at:nbytes] = 0
        return nbytes

    @staticmethod
    def unpack(blob: NDArray[np.uint8]) -> "Batch":
        """A batch whose arrays are views of a blob (uint8, contiguous, aligned to 8 bytes); no copy.

        Raises
        ------
        ValueError
            The bytes are not those of a batch.
        """
        if blob.size < HEADER_BYTES:
            raise ValueError(f"a batch has at least {HEADER_BYTES} bytes, got {blob.size}")
        magic, nbytes, rows, keys, features, values = blob[: 6 * 8].view("<u8").tolist()
        if magic != _MAGIC:
            raise ValueError("these bytes are not a batch")
        layout = _layout(rows, keys, features, values)
        if nbytes > blob.size or nbytes != _aligned(layout[-1][2]):
            raise ValueError(f"a batch of {nbytes} bytes is cut short: {blob.size} are there")
        return Batch(*(blob[start:stop].view(kind) for kind, start, stop, _ in layout))


def batch_of(rows: Rows) -> Batch:
    """Localise rows: sort their distinct keys, and replace every key by its position among them.

    Raises
    ------
    DataError
        The rows have more features than an int32 position can count.
    """
    nnz = rows.keys.size
    if nnz >= 2**31:
        raise DataError(f"a batch of {len(rows)} rows has {nnz} features, more than 2^31: reduce data.batch")
    indices = np.empty(nnz, np.int32)
    keys = localise(rows.keys, np.empty(1 << max(1, int(nnz * 2).bit_length()), np.int32), indices)
    values = rows.values
    if values.size and bool((values == 1.0).all()):
        values = values[:0]
    return Batch(keys, rows.indptr.astype(np.int32), indices, values, rows.labels)


EMPTY = Batch(
    np.empty(0, np.uint64),
    np.zeros(1, np.int32),
    np.empty(0, np.int32),
    np.empty(0, np.float32),
    np.empty(0, np.float32),
)
