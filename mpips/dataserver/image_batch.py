"""The unit that a worker trains on where the data are images: bytes of pixels and labels, as they lie in an arena."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = 0x4547414D49535049  # "IPSIMAGE", read as a little-endian number
HEADER_BYTES = 64


@dataclass(frozen=True, slots=True, repr=False)
class ImageBatch:
    """Images of training or test data.

    Attributes
    ----------
    images : uint8[n, channels, height, width]
    labels : int32[n]
        The number of each image's class.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return int(self.labels.size)

    def __repr__(self) -> str:
        return f"ImageBatch(images={len(self)}, shape={self.images.shape[1:]})"

    @staticmethod
    def nbytes_of(images: int, shape: tuple[int, ...]) -> int:
        """Bytes of the blob of so many images of a shape (channels, height, width)."""
        return HEADER_BYTES + _padded(4 * images) + _padded(images * int(np.prod(shape)))

    @staticmethod
    def lay(blob: NDArray[np.uint8], images: int, shape: tuple[int, ...]) -> "ImageBatch":
        """A batch whose arrays are views of a blob (uint8, contiguous, aligned to 8 bytes), to be filled."""
        blob[:HEADER_BYTES].view("<u8")[:] = MAGIC, ImageBatch.nbytes_of(images, shape), images, *shape, 0, 0
        return ImageBatch.unpack(blob)

    @staticmethod
    def unpack(blob: NDArray[np.uint8]) -> "ImageBatch":
        """A batch whose arrays are views of a blob; no copy.

        Raises
        ------
        ValueError
            The bytes are not those of a batch of images.
        """
        if not is_of_images(blob):
            raise ValueError("these bytes are not a batch of images")
        words: list[int] = blob[:HEADER_BYTES].view("<u8").tolist()
        if words[1] > blob.size:
            raise ValueError(f"a batch of {words[1]} bytes is cut short: {blob.size} are there")
        images, shape = words[2], words[3:6]
        start = HEADER_BYTES + _padded(4 * images)
        labels: NDArray[Any] = blob[HEADER_BYTES : HEADER_BYTES + 4 * images].view("<i4")
        pixels = blob[start : start + images * int(np.prod(shape))]
        return ImageBatch(pixels.reshape(images, *shape), labels)


def is_of_images(blob: NDArray[np.uint8]) -> bool:
    """Whether a blob begins as one of these does."""
    return blob.size >= HEADER_BYTES and int(blob[:8].view("<u8")[0]) == MAGIC


def _padded(size: int) -> int:
    return (size + 7) & ~7
