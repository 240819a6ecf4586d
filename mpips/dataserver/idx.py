"""Images and labels in the IDX format, as MNIST and its successors come: a header of sizes, then bytes, plain or
gzipped.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.errors import DataError, cannot_read

UNSIGNED_BYTES = 8


def labels_of(images: Path) -> Path:
    """The file with the labels of a file of images, by its name: "images" and "idx3" become "labels" and "idx1"."""
    return images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))


def shape(path: Path) -> tuple[int, ...]:
    """The sizes that the header tells.

    Raises
    ------
    DataError
        when the file can't be read, or is not IDX of unsigned bytes.
    """
    return _header(path, _read(path, 4 + 4 * 255))[0]


def read(path: Path) -> NDArray[np.uint8]:
    """All of it, in its shape.

    Raises
    ------
    DataError
        when the file can't be read, is not IDX of unsigned bytes, or is cut short.
    """
    content = _read(path, -1)
    sizes, start = _header(path, content)
    count = math.prod(sizes)
    if len(content) - start != count:
        raise DataError(
            f"{path}: {len(content) - start:,} bytes follow the header, which tells {count:,}: is it whole?"
        )
    return np.frombuffer(content, np.uint8, count, start).reshape(sizes)


def _read(path: Path, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else open(path, "rb") as stream:
            return stream.read(size)
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: is cut short or damaged: {error}") from error
    except OSError as error:
        raise cannot_read(path, error) from error


def _header(path: Path, content: bytes) -> tuple[tuple[int, ...], int]:
    """The sizes, and where the bytes begin."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTES:
        raise DataError(f"{path}: is not IDX of unsigned bytes")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{path}: is cut short")
    return tuple(np.frombuffer(content, ">u4", content[3], 4).tolist()), start
