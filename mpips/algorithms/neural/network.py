"""A network at work in one thread: images in, the loss and the gradients of all weights out."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpips.algorithms.neural import layers as at_work
from mpips.algorithms.neural import settings
from mpips.algorithms.neural.settings import Shape, Weights
from mpips.kernels.activations import softmax, stack

Array = np.ndarray[Any, Any]
Ready = Callable[[int, "at_work.Convolution | at_work.Connected"], None]

SIZES = 3  # numbers of images that memory is kept for: a step, what is left of a batch, an evaluation


class Network:
    """Made for each thread; all share the weights.

    Parameters
    ----------
    layers, shapes, weights : the network; see `mpips.algorithms.neural.settings`.
    values : of each of `weights` an array (units, inputs + 1), read here and never written.
    """

    def __init__(
        self, layers: Sequence[Any], shapes: Sequence[Shape], weights: Sequence[Weights], values: Sequence[Array]
    ) -> None:
        self._layers = layers
        self._order = _pooled_first(layers)
        self._shapes = shapes
        self._weights = {each.layer: (number, values[number]) for number, each in enumerate(weights)}
        self._dtype = values[0].dtype
        self._scratch = at_work.Scratch(self._dtype), at_work.Scratch(self._dtype)
        self._made: dict[int, list[tuple[at_work.AtWork, int | None]]] = {}

    def learn(self, images: Array, labels: Array, seed: int, ready: Ready) -> tuple[float, int]:
        """The loss summed over images (n, channels, height, width) uint8 with labels (n,), and how many are classified
        right; `ready` is called for each of `weights`, the last first, with its number and its layer, as soon as that
        has its gradient and needs the weights no more.
        """
        found = self._at_work(len(labels))
        scores = self._forward(found, images, seed)
        errors: Array | None = np.empty_like(scores)
        loss, right = softmax(scores, labels, errors)
        for layer, number in reversed(found):
            if errors is None:
                break
            errors = layer.backward(errors)
            if number is not None:
                ready(number, layer)  # type: ignore[arg-type]
        return float(loss), int(right)

    def scores(self, images: Array) -> Array:
        """What comes out for images (n, channels, height, width) uint8: (classes, n)."""
        return self._forward(self._at_work(len(images)), images, None)

    def _forward(self, found: list[tuple[at_work.AtWork, int | None]], images: Array, seed: int | None) -> Array:
        values = np.empty((*self._shapes[0], len(images)), self._dtype)
        stack(images, values.reshape(-1, len(images)))
        for layer, _ in found:
            values = layer.forward(values, seed)
        return values.reshape(-1, len(images))

    def _at_work(self, n: int) -> list[tuple[at_work.AtWork, int | None]]:
        """The layers for n images, with the numbers of their weights."""
        found = self._made.pop(n, None)
        if found is None:
            while len(self._made) >= SIZES:
                del self._made[next(iter(self._made))]
            found = [self._make(place, n) for place in range(len(self._order))]
        self._made[n] = found  # the last that was used
        return found

    def _make(self, place: int, n: int) -> tuple[at_work.AtWork, int | None]:
        index = self._order[place]
        layer, before, after = self._layers[index], self._shapes[index], self._shapes[index + 1]
        number, values = self._weights.get(index, (None, None))
        first = index == min(self._weights)
        made: at_work.AtWork
        if isinstance(layer, settings.Convolution):
            assert values is not None
            made = at_work.Convolution(layer, before, after, values, n, self._scratch, first)
        elif isinstance(layer, settings.Connected):
            assert values is not None
            made = at_work.Connected(values, n, first)
        elif isinstance(layer, settings.Pooling):
            over = place > 0 and isinstance(self._layers[self._order[place - 1]], settings.Convolution)
            made = at_work.Pooling(layer, before, after, n, self._dtype, over)
        elif isinstance(layer, settings.Dropout):
            made = at_work.Dropout(layer, before, n, index)
        elif isinstance(layer, settings.Normalisation):
            made = at_work.Normalisation(layer, before, n, self._dtype)
        else:
            made = at_work.Relu()
        return made, number


def _pooled_first(layers: Sequence[Any]) -> list[int]:
    """The order of work: what is pooled after being rectified is pooled before, which gives the same for less."""
    order = list(range(len(layers)))
    for i in range(1, len(order)):
        if isinstance(layers[order[i]], settings.Pooling) and isinstance(layers[order[i - 1]], settings.Relu):
            order[i - 1], order[i] = order[i], order[i - 1]
    return order
