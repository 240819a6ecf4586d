"""A network that was trained, read from a generation: what it takes images for, and which test images wrongly."""

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mpips.algorithms.neural.network import Network, alone
from mpips.algorithms.neural.settings import AnyLayer, Shape, shapes_of, weights_of
from mpips.checkpoint import Generation
from mpips.dataserver.image_files import Kind, load
from mpips.dataserver.spec import DataSpec
from mpips.errors import Error
from mpips.quantities import from_text

Array = np.ndarray[Any, Any]

AT_ONCE = 128  # images


class NoNetwork(Error, ValueError):
    """A generation that has no network in it."""


class Wrong(NamedTuple):
    """Test images that are taken for another class.

    Parameters
    ----------
    images : (n, channels, height, width) uint8.
    labels, taken_for : (n,).
    tested : how many images were looked at.
    """

    images: Array
    labels: Array
    taken_for: Array
    tested: int


class Trained:
    """A network of a generation.

    Parameters
    ----------
    generation : of a job that has trained one.

    Attributes
    ----------
    image : the shape of what it takes.
    classes : their names.
    format : of the data that it was trained on.

    Raises
    ------
    NoNetwork
        when there is none in it.
    CheckpointError
        when the generation is damaged.
    """

    def __init__(self, generation: Generation) -> None:
        about = generation.about.get("network")
        if about is None:
            raise NoNetwork(f"{generation.path}: has no network in it")
        layers = msgspec.convert(about["layers"], tuple[AnyLayer, ...])
        self.image = Shape(*about["image"])
        self.classes: list[str] = about["classes"]
        self.format: str = about["data"]["format"]
        self._about = about
        shapes = shapes_of(layers, self.image, len(self.classes))
        weights = weights_of(layers, shapes, 1)
        values = [generation.dense(each.name, 0, each.units)[0] for each in weights]
        self._network = Network(layers, shapes, weights, values)

    def probabilities(self, images: Array) -> Array:
        """Of each class for images (n, channels, height, width) uint8: (n, classes)."""
        found = np.empty((len(images), len(self.classes)))
        for start in range(0, len(images), AT_ONCE):
            scores = alone(self._network.scores(images[start : start + AT_ONCE])).T.astype(np.float64)
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            found[start : start + AT_ONCE] = powers / powers.sum(axis=1, keepdims=True)
        return found

    def wrong(self) -> Wrong:
        """The test images of its job that it takes for another class.

        Raises
        ------
        DataError
            when they are not there any more.
        """
        spec = msgspec.convert(self._about["data"], DataSpec, dec_hook=from_text)
        loaded = load(spec, Path(self._about["base"]), Kind(*self.image, self.classes), test=True)
        taken_for = self.probabilities(loaded.images).argmax(axis=1)
        where = np.flatnonzero(taken_for != loaded.labels)
        return Wrong(loaded.images[where], loaded.labels[where], taken_for[where], len(taken_for))
