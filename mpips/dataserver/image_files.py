"""Files and folders of images: what they have in common, and all of them as arrays."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver import folders, idx
from mpips.dataserver.errors import DataError
from mpips.dataserver.spec import DataSpec
from mpips.dataserver.text import find_files

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int32]


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
    """What the images are, as far as headers and folders tell; `spec` as it is in a job file of folder `base`.

    Raises
    ------
    DataError
        when files or folders can't be read, or don't belong together.
    """
    assert spec.images is not None
    if spec.format == "folders":
        assert spec.images.height is not None
        assert spec.images.width is not None
        return Kind(spec.images.channels, spec.images.height, spec.images.width, folders.classes(base / spec.files[0]))
    sizes = {idx.shape(path): path for path in find_files(spec.files, base) + find_files(spec.test_files, base)}
    for path in sizes.values():
        if len(idx.shape(path)) != 3:
            raise DataError(f"{path}: has {len(idx.shape(path))} sizes, not images, height and width")
    if len(kinds := {size[1:] for size in sizes}) > 1:
        raise DataError(f"{max(sizes.values())}: its images are not as large as those of {min(sizes.values())}")
    height, width = kinds.pop()
    labels = [idx.read(idx.labels_of(path)) for path in find_files(spec.files, base)]
    highest = max((int(each.max()) for each in labels if each.size), default=0)
    return Kind(1, height, width, [str(label) for label in range(highest + 1)])


def load(spec: DataSpec, base: Path, kind: Kind, test: bool, threads: int = 1) -> Loaded:
    """All training images, or all test images, in the order of the files.

    Raises
    ------
    DataError
        as `kind_of`, and for labels that are no class, or not as many as images.
    """
    files = spec.test_files if test and spec.test_files else spec.files
    if test and not spec.test_files and spec.test is None:
        files = ()
    shape = kind.channels, kind.height, kind.width
    if spec.format == "folders":
        listed = [file for name in files for file in folders.files(base / name, kind.classes)]
        found = Loaded(*folders.read(listed, *shape, spec.malformed == "skip", threads))
    else:
        found = _load_idx(find_files(files, base), kind)
    if spec.test is not None:
        tested = np.arange(found.labels.size) % spec.test.every == spec.test.offset
        chosen = tested if test else ~tested
        found = Loaded(found.images[chosen], found.labels[chosen], found.skipped)
    return found


def _load_idx(files: list[Path], kind: Kind) -> Loaded:
    images: list[Pixels] = [np.empty((0, 1, kind.height, kind.width), np.uint8)]
    labels = [np.empty(0, np.uint8)]
    for path in files:
        pixels, of_path = idx.read(path), idx.read(idx.labels_of(path))
        if of_path.shape != pixels.shape[:1]:
            raise DataError(f"{idx.labels_of(path)}: has {of_path.size:,} labels for {len(pixels):,} images of {path}")
        if of_path.size and int(of_path.max()) >= len(kind.classes):
            raise DataError(f"{idx.labels_of(path)}: the label {of_path.max()} is none of the training images'")
        images.append(pixels[:, None])
        labels.append(of_path)
    return Loaded(np.concatenate(images), np.concatenate(labels).astype(np.int32), 0)
