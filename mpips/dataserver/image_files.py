"""Files and folders of images: what they have in common, and all of them as arrays."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver import folders, idx
from mpips.dataserver.errors import DataError
from mpips.dataserver.files import find_apart, find_files
from mpips.dataserver.spec import DataSpec

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int32]

LABELS = 256  # that a byte may be


class Kind(NamedTuple):
    """What all images of the data have in common.

    Parameters
    ----------
    channels, height, width : of each.
    classes : names of the classes, by label.
    """

    channels: int
    height: int
    width: int
    classes: list[str]


class Loaded(NamedTuple):
    """Images (n, channels, height, width), labels (n,), and how many could not be read."""

    images: Pixels
    labels: Labels
    skipped: int


def kind_of(spec: DataSpec, base: Path) -> Kind:
    """What the images are, as far as headers, labels and folders tell; `spec` as it is in a job file of folder `base`.

    Raises
    ------
    DataError
        when files or folders can't be read, or don't belong together.
    """
    assert spec.images is not None
    in_folders = spec.format == "folders"
    train, test = find_apart(spec.files, spec.test_files, base, folders=in_folders)
    if in_folders:
        assert spec.images.height is not None
        assert spec.images.width is not None
        size = spec.images.channels, spec.images.height, spec.images.width
        classes = sorted({name for folder in train for name in folders.classes(folder)})
        for folder in test:
            folders.check(folder, classes)
    else:
        size = 1, *_size_of(train + test)
        highest = max(int(_labels_of(path, LABELS).max(initial=0)) for path in train)
        classes = [str(label) for label in range(highest + 1)]
        for path in test:
            _labels_of(path, len(classes))
    if len(classes) < 2:
        raise DataError(f"{train[0]}: all images are of one class, so there is nothing to learn")
    return Kind(*size, classes)


def _size_of(paths: list[Path]) -> tuple[int, int]:
    """The height and width of all images of these files."""
    sizes = {path: idx.shape(path) for path in paths}
    for path, size in sizes.items():
        if len(size) != 3:
            raise DataError(f"{path}: has {len(size)} sizes, not images, height and width")
        if size[1:] != sizes[paths[0]][1:]:
            raise DataError(f"{path}: its images are not as large as those of {paths[0]}")
    _, height, width = sizes[paths[0]]
    return height, width


def _labels_of(images: Path, classes: int) -> Labels:
    """Those of a file of images, each of which must have one of so many."""
    path = idx.labels_of(images)
    if path == images:
        raise DataError(
            f'{images}: there must be "images" or "idx3" in its name, for which labels have "labels" and "idx1"'
        )
    labels, (count, *_) = idx.read(path), idx.shape(images)
    if labels.shape != (count,):
        raise DataError(f"{path}: has {labels.size:,} labels for {count:,} images of {images}")
    if labels.max(initial=0) >= classes:
        raise DataError(f"{path}: the label {labels.max()} is none of the training images'")
    return labels.astype(np.int32)


def load(spec: DataSpec, base: Path, kind: Kind, test: bool, part: int = 0, parts: int = 1, threads: int = 1) -> Loaded:
    """One of `parts` parts of the training images, or of the test images: every `parts`-th in the order of the files.

    Raises
    ------
    DataError
        when they can't be read.
    """
    if test and spec.test is None and not spec.test_files:
        return Loaded(np.empty((0, *kind[:3]), np.uint8), np.empty(0, np.int32), 0)
    names = spec.test_files if test and spec.test_files else spec.files
    files = _Files(spec, base, kind, names, threads)
    places = np.arange(files.count)
    if names is spec.files:
        tested = np.zeros(files.count, np.bool_)
        if spec.test is not None:
            tested = places % spec.test.every == spec.test.offset
        places = places[tested if test else ~tested]
    return files.read(places[part::parts])


class _Files:
    """The images of some files or folders, in their order, of which some can be read.

    Attributes
    ----------
    count : of images.
    """

    def __init__(self, spec: DataSpec, base: Path, kind: Kind, names: tuple[str, ...], threads: int) -> None:
        self._kind = kind
        self._skip = spec.malformed == "skip"
        self._threads = threads
        self._in_folders: list[folders.ImageFile] | None = None
        paths = find_files(names, base, folders=spec.format == "folders")
        if spec.format == "folders":
            self._in_folders = [file for folder in paths for file in folders.files(folder, kind.classes)]
            self.count = len(self._in_folders)
        else:
            self._images = np.concatenate([idx.read(path) for path in paths])[:, None]
            self._labels = np.concatenate([_labels_of(path, len(kind.classes)) for path in paths])
            self.count = len(self._labels)

    def read(self, places: NDArray[np.int64]) -> Loaded:
        """Those at these places; what can't be read is left out if the data say so."""
        if self._in_folders is None:
            return Loaded(self._images[places], self._labels[places], 0)
        chosen = [self._in_folders[place] for place in places.tolist()]
        return Loaded(*folders.read(chosen, *self._kind[:3], self._skip, self._threads))
