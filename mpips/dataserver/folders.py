"""Images in folders: one for each class, named by it, with image files of any format that Pillow reads."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.errors import DataError, cannot_read

if TYPE_CHECKING:
    from PIL import Image

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
    check(folder, names)
    found = [ImageFile(path, label) for label, name in enumerate(names) for path in sorted(_images_in(folder / name))]
    if not found:
        raise DataError(
            f"{folder}: there are no images in its folders; files must end with {', '.join(sorted(ENDINGS))}"
        )
    return found


def check(folder: Path, names: list[str]) -> None:
    """See that its classes are of these names.

    Raises
    ------
    DataError
        when one is not, and as `classes`.
    """
    for name in classes(folder):
        if name not in names:
            raise DataError(f'{folder}: the class "{name}" is not among those of the training images')


def _images_in(folder: Path) -> Iterator[Path]:
    """All image files below a folder, if there is one; what is hidden is none."""
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in ENDINGS:
                yield Path(place, name)


def decode(path: Path, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    """An image, (channels, height, width): grey with one channel, red, green and blue with three; resized to the size.

    It is turned as its file says that it is to be seen, what is transparent is white, and of 16 bits the upper 8 count.

    Raises
    ------
    DataError
        when Pillow can't read it.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            pixels = _opaque(_of_bytes(image)).convert("L" if channels == 1 else "RGB")
            if pixels.size != (width, height):
                pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
            found = np.asarray(pixels, np.uint8).reshape(height, width, channels)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is no image that can be read") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: can't be read as an image: {error}") from error
    return np.ascontiguousarray(found.transpose(2, 0, 1))


def _of_bytes(image: "Image.Image") -> "Image.Image":
    """The same with 8 bits a channel."""
    from PIL import Image

    if image.mode[0] not in "IF":
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or int(pixels.min()) < 0 or int(pixels.max()) >= 1 << 16:
        raise ValueError("its pixels are not of 8 or 16 bits")
    return Image.fromarray((pixels >> 8).astype(np.uint8))


def _opaque(image: "Image.Image") -> "Image.Image":
    """The same on white."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


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
