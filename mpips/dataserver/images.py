"""The images of one part of the data: read once, and for every epoch shuffled, distorted and cut into batches.

Source: Chilimbi et al. 2014, section 4.1: data servers transform images so that training need not wait for it, and each
epoch sees other variants.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.dictionary import Dictionary
from mpips.dataserver.image_batch import ImageBatch
from mpips.dataserver.image_files import kind_of, load
from mpips.dataserver.spec import DataSpec, ImageSpec
from mpips.kernels.distort import distort

Pixels = NDArray[np.uint8]

SEEDS = 2**63
ORDERS = 3  # epochs whose order is remembered: batches of two are asked for at a time


def taps_of(smooth: float) -> NDArray[np.float32]:
    """A Gaussian of this standard deviation, in pixels, whose squares add up to 1."""
    reach = max(1, round(2.5 * smooth))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / smooth) ** 2)
    scaled: NDArray[np.float32] = (taps / np.sqrt((taps**2).sum())).astype(np.float32)
    return scaled


class Variants:
    """Distorted images, made when they are asked for; as many as there is memory for are kept.

    Parameters
    ----------
    spec : how they are distorted.
    images : (n, channels, height, width) uint8.
    seed : of all that is random.
    threads : that make them.
    """

    def __init__(self, spec: ImageSpec, images: Pixels, seed: int, threads: int) -> None:
        self._spec = spec
        self._images = images
        self._seed = seed
        self._taps = taps_of(spec.smooth)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)
        per_image = max(1, int(np.prod(images.shape[1:])))
        kept = min(spec.variants * len(images), spec.memory // per_image)
        self._kept = np.empty((kept, *images.shape[1:]), np.uint8)
        self._made = np.zeros(kept, np.bool_)

    def fill(self, chosen: NDArray[np.int64], epoch: int, out: Pixels) -> None:
        """The variants that the images of these numbers have in an epoch, into `out`."""
        if not self._spec.distorts:
            np.take(self._images, chosen, axis=0, out=out, mode="clip")  # "raise" would buffer
            return
        variant = epoch % self._spec.variants if self._spec.variants else epoch
        place = variant * len(self._images) + chosen
        known = place < len(self._kept) if self._spec.variants else np.zeros(len(chosen), np.bool_)
        there = np.zeros(len(chosen), np.bool_)
        there[known] = self._made[place[known]]
        out[there] = self._kept[place[there]]
        if there.all():
            return
        missing = chosen[~there]
        made = out if not there.any() else np.empty((len(missing), *out.shape[1:]), np.uint8)
        self._distort(missing, variant, made)
        if made is not out:
            out[~there] = made
        keep = known & ~there
        self._kept[place[keep]] = out[keep]
        self._made[place[keep]] = True

    def _distort(self, chosen: NDArray[np.int64], variant: int, out: Pixels) -> None:
        spec = self._spec
        variants = np.full(len(chosen), variant, np.int64)
        how = spec.shift, np.deg2rad(spec.turn), spec.scale, spec.mirror, spec.bend, self._taps
        cuts = np.linspace(0, len(chosen), self._threads + 1).astype(int).tolist()
        parts = [slice(start, end) for start, end in pairwise(cuts) if end > start]

        def one(part: slice) -> None:
            distort(self._images, chosen[part], variants[part], self._seed, *how, out[part])

        list(self._pool.map(one, parts))


class ImagePart:
    """One part of `parts`: as `mpips.dataserver.part.Part`.

    Parameters
    ----------
    spec, base : the data, and the folder that paths are relative to.
    part, parts : which.
    threads : that read and distort.

    Raises
    ------
    DataError
        when the images can't be read.
    """

    lasting = False
    dictionary: Dictionary | None = None

    def __init__(self, spec: DataSpec, base: Path, part: int, parts: int, threads: int) -> None:
        assert spec.images is not None
        kind = kind_of(spec, base)
        train, test = (load(spec, base, kind, of_test, part, parts, threads) for of_test in (False, True))
        self._images, self._labels = train.images, train.labels
        self._test_images, self._test_labels = test.images, test.labels
        self._shape = kind.channels, kind.height, kind.width
        self._batch = spec.batch
        self._seed = spec.seed, part
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._variants = Variants(spec.images, self._images, (spec.seed * parts + part) % SEEDS, threads)
        self.train, self.test = (-(-count // spec.batch) for count in (self._labels.size, self._test_labels.size))
        self.train_rows, self.test_rows = self._labels.size, self._test_labels.size
        self.skipped = train.skipped + test.skipped
        self.features = len(kind.classes)

    def size(self, batch: int) -> int:
        """As `Part.size`."""
        return ImageBatch.nbytes_of(self._range(batch).size, self._shape)

    def _range(self, batch: int) -> NDArray[np.int64]:
        first, rows = (batch, self.train_rows) if batch < self.train else (batch - self.train, self.test_rows)
        return np.arange(first * self._batch, min(rows, (first + 1) * self._batch))

    def read(self, batch: int, epoch: int, out: Pixels) -> None:
        """As `Part.read`."""
        places = self._range(batch)
        found = ImageBatch.lay(out, places.size, self._shape)
        if batch >= self.train:
            found.images[:], found.labels[:] = self._test_images[places], self._test_labels[places]
            return
        chosen = self._order(epoch)[places]
        found.labels[:] = self._labels[chosen]
        self._variants.fill(chosen, epoch, found.images)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        order = self._orders.get(epoch)
        if order is None:
            order = np.random.default_rng([*self._seed, epoch]).permutation(self.train_rows)
            orders = self._orders | {epoch: order}  # other threads may do the same
            self._orders = {known: orders[known] for known in sorted(orders)[-ORDERS:]}
        return order

    def close(self) -> None:
        """As `Part.close`."""
