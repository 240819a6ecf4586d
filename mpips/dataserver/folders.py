"""Images in folders: one for each class, named by it, with image files of any format that Pillow reads."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.errors import DataError, cannot_read

ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})


class ImageFile(NamedTuple):
    """One image, and the number of its class."""

    path: Path
    label: int


def classes(folder: Path) -> list[str]:
    """The names of the classes, in order.

    Raises
    ------
    DataError
        when it is no folder that can be read, or has no folder in it.
    """
    try:
        found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise cannot_read(folder, error) from error
    if not found:
        raise DataError(f"{folder}: has no folders, which would be the classes")
    return found


def files(folder: Path, names: list[str]) -> list[ImageFile]:
    """The image files of the classes of these names, class by class.

    Raises
    ------
    DataError
        when there is a folder that is none of these classes, or no image.
    """
    for name in classes(folder):
        if name not in names:
            raise DataError(f'{folder}: the class "{name}" is not among those of the training images')
    found = []
    for label, name in enumerate(names):
        if (folder / name).is_dir():
            paths = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in ENDINGS)
            found += [ImageFile(path, label) for path in paths]
    if not found:
        raise DataError(
            f"{folder}: there are no images in its folders; files must end with {', '.join(sorted(ENDINGS))}"
        )
    return found


def decode(path: Path, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    """An image, (channels, height, width): grey with one channel, red, green and blue with three; resized to the size.

    Raises
    ------
    DataError
        when Pillow can't read it.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pixels = image.convert("L" if channels == 1 else "RGB")
            if pixels.size != (width, height):
                pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
            found = np.asarray(pixels, np.uint8).reshape(height, width, channels)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is no image that can be read") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: can't be read as an image: {error}") from error
    return np.ascontiguousarray(found.transpose(2, 0, 1))


def read(
    files: list[ImageFile], channels: int, height: int, width: int, skip: bool, threads: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32], int]:
    """Images (n, channels, height, width), labels (n,), and how many could not be read and were left out.

    Raises
    ------
    DataError
        when one can't be read, unless such are to be skipped.
    """

    def one(decode_it: partial[NDArray[np.uint8]]) -> NDArray[np.uint8] | None:
        try:
            return decode_it()
        except DataError:
            if skip:
                return None
            raise

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(one, (partial(decode, file.path, channels, height, width) for file in files)))
    there = [(file.label, image) for file, image in zip(files, found, strict=True) if image is not None]
    images = np.empty((len(there), channels, height, width), np.uint8)
    for place, (_, image) in enumerate(there):
        images[place] = image
    labels = np.array([label for label, _ in there], np.int32)
    return images, labels, len(files) - len(there)
