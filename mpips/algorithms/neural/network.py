"""A network at work: images in, the loss and the gradients of all weights out; or one member's part of a team's."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpips.algorithms.neural import layers as at_work
from mpips.algorithms.neural import settings
from mpips.algorithms.neural.partition import Box, shares, split, whole
from mpips.algorithms.neural.relay import Relay, Swap, Work
from mpips.algorithms.neural.settings import Shape, Weights
from mpips.kernels.activations import softmax, stack

Array = np.ndarray[Any, Any]
Ready = Callable[[int, "at_work.Convolution | at_work.Connected", slice, Array], None]

SIZES = 3  # numbers of images that memory is kept for: a step, what is left of a batch, an evaluation


class Made(NamedTuple):
    """A layer for some number of images.

    Parameters
    ----------
    layer : at work.
    weights : the number of its weights, if it has any.
    cut : what it needs of what everyone has; None: all.
    relay : how it gets what it needs from others.
    gathered : how it gets the weights that others have, and where it reads them; None: it uses its own alone.
    """

    layer: at_work.AtWork
    weights: int | None
    cut: tuple[slice, slice] | None
    relay: Relay | None
    gathered: tuple[Relay, Array] | None


class Network:
    """Made for each images under way; all share the weights.

    Parameters
    ----------
    layers, shapes, weights : the network; see `mpips.algorithms.neural.settings`.
    values : of each of `weights` an array (units, inputs + 1), read here and never written; of a team's network those
        of this member's units.
    member, size : which of a team of this size this is.
    """

    def __init__(
        self,
        layers: Sequence[Any],
        shapes: Sequence[Shape],
        weights: Sequence[Weights],
        values: Sequence[Array],
        member: int = 0,
        size: int = 1,
    ) -> None:
        self._layers = layers
        self._order = _pooled_first(layers)
        self._shapes = shapes
        self._parts = split(layers, self._order, shapes, size)
        self._weights = {each.layer: number for number, each in enumerate(weights)}
        self._values = values
        self._member, self._size = member, size
        self._dtype = values[0].dtype
        self._scratch = at_work.Scratch(self._dtype), at_work.Scratch(self._dtype)
        self._made: dict[int, tuple[list[Made], Relay | None]] = {}

    def learn(self, images: Array, labels: Array, seed: int, ready: Ready) -> Work:
        """Work that ends with the loss summed over images (n, channels, height, width) uint8 with labels (n,).

        `ready` is called for each of `weights`, the last first, with its number, its layer, some of the units and the
        gradient of the loss by their weights, as soon as that is there and the layer needs them no more.
        """
        made, last = self._at_work(len(labels))
        scores = yield from self._forward(made, last, images, seed)
        errors = np.empty_like(scores)
        loss = softmax(scores, labels, errors)
        if last is not None:
            own = self._parts[-1].makes[self._member].within(whole(self._shapes[-1]))
            errors = np.ascontiguousarray(errors.reshape(*self._shapes[-1], len(labels))[own])
        for each in reversed(made):
            back = each.layer.backward(errors)
            if each.relay is not None and back is not None:
                back = yield from each.relay.back(back)
            if each.weights is not None:
                layer: Any = each.layer
                for units, gradient in layer.gradients():
                    if each.gathered is None:
                        ready(each.weights, layer, units, gradient)
                    else:  # of the units that this member has
                        found = yield from each.gathered[0].back(gradient[:, None])
                        ready(each.weights, layer, slice(0, len(found)), found[:, 0])
            if back is None:
                break
            errors = back
        return float(loss)

    def scores(self, images: Array) -> Work:
        """Work that ends with what comes out for images (n, channels, height, width) uint8: (classes, n)."""
        made, last = self._at_work(len(images))
        return (yield from self._forward(made, last, images, None))

    def _forward(
        self, made: list[Made], last: Relay | None, images: Array, seed: int | None
    ) -> Generator[Swap, None, Array]:
        values = np.empty((*self._shapes[0], len(images)), self._dtype)
        stack(images, values.reshape(-1, len(images)))
        for layer, weights, cut, relay, gathered in made:
            if gathered is not None and weights is not None:
                found = yield from gathered[0].there(self._values[weights][:, None])
                gathered[1][:] = found[:, 0]
            if relay is not None:
                values = yield from relay.there(values)
            elif cut is not None:
                values = np.ascontiguousarray(values[cut])
            values = layer.forward(values, seed)
        if last is not None:
            values = yield from last.there(values)
        return values.reshape(-1, len(images))

    def _at_work(self, n: int) -> tuple[list[Made], Relay | None]:
        """The layers for n images, and how everyone gets what comes out of the last."""
        found = self._made.pop(n, None)
        if found is None:
            while len(self._made) >= SIZES:
                del self._made[next(iter(self._made))]
            makes = self._parts[-1].makes
            made = [self._make(place, n) for place in range(len(self._order))]
            found = made, self._relay(makes, [whole(self._shapes[-1])] * self._size, (1, n))
        self._made[n] = found  # the last that was used
        return found

    def _relay(self, have: Sequence[Box], need: Sequence[Box], width: tuple[int, ...]) -> Relay | None:
        """None where everyone has just what it needs."""
        if list(have) == list(need):
            return None
        return Relay(have, need, self._member, width, self._dtype)

    def _make(self, place: int, n: int) -> Made:
        index = self._order[place]
        layer, (needs, makes) = self._layers[index], self._parts[place]
        need, make = needs[self._member], makes[self._member]
        have = self._parts[place - 1].makes if place else [whole(self._shapes[0])] * self._size
        width = self._shapes[index].width
        before = Shape(*need.shape, width)
        after = Shape(*make.shape, self._shapes[index + 1].width)
        weights = self._weights.get(index)
        first = index == min(self._weights)
        everyones = have == [whole(self._shapes[0])] * self._size  # the images, before the first weights
        relay = self._relay(have, needs, (width, n)) if not everyones else None
        cut = need.within(have[self._member]) if everyones and need != have[self._member] else None
        made: at_work.AtWork
        gathered = None
        if isinstance(layer, settings.Convolution):
            assert weights is not None
            values = self._values[weights]
            if layer.split == "rows" and self._size > 1:
                gathered = self._gather(index, values.shape[1])
                values = gathered[1]
            up = need.rows[0] - make.rows[0] * layer.stride + layer.padding
            made = at_work.Convolution(layer, before, after, up, values, n, self._scratch, first)
        elif isinstance(layer, settings.Connected):
            assert weights is not None
            made = at_work.Connected(self._values[weights], n, first)
        elif isinstance(layer, settings.Pooling):
            over = place > 0 and isinstance(self._layers[self._order[place - 1]], settings.Convolution)
            made = at_work.Pooling(layer, before, after, n, self._dtype, over)
        elif isinstance(layer, settings.Dropout):
            of_all = self._shapes[index]
            first_value = (make.channels[0] * of_all.height + make.rows[0]) * width
            made = at_work.Dropout(layer, before, first_value, of_all.height * width, n, index)
        elif isinstance(layer, settings.Normalisation):
            made = at_work.Normalisation(layer, before, make.within(need)[0], n, self._dtype)
        else:
            made = at_work.Relu()
        return Made(made, weights, cut, relay, gathered)

    def _gather(self, index: int, numbers: int) -> tuple[Relay, Array]:
        """How a member that needs all weights of a layer gets them."""
        units = self._shapes[index + 1].channels
        have = [Box(rows, (0, 1)) for rows in shares(units, self._size)]
        relay = Relay(have, [Box((0, units), (0, 1))] * self._size, self._member, (numbers,), self._dtype)
        return relay, np.empty((units, numbers), self._dtype)


def alone(work: Work) -> Any:
    """What comes of work that needs nobody else."""
    try:
        next(work)
    except StopIteration as end:
        return end.value
    raise RuntimeError("this work is a part of a team's")


def _pooled_first(layers: Sequence[Any]) -> list[int]:
    """The order of work: what is pooled after being rectified is pooled before, which gives the same for less."""
    order = list(range(len(layers)))
    for i in range(1, len(order)):
        if isinstance(layers[order[i]], settings.Pooling) and isinstance(layers[order[i - 1]], settings.Relu):
            order[i - 1], order[i] = order[i], order[i - 1]
    return order
