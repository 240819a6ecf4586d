"""How the work on a network is split over the workers of a team: who makes what of each layer's activations, and who
needs what of them. Pure.

A fully connected layer is split by its units, a convolution by its channels, or by rows of the image; what has no
weights follows the layer before. Of weights each member has the rows of some units, whatever the split.

Source: Chilimbi et al. 2014, section 4.3; by rows of the image, each member needs a few of its neighbours' besides.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from mpips.algorithms.neural import settings
from mpips.algorithms.neural.settings import Shape

Span = tuple[int, int]  # the first, and one past the last


class Box(NamedTuple):
    """Some channels of an image's activations, and of these some rows."""

    channels: Span
    rows: Span

    def meet(self, other: "Box") -> "Box":
        """What is in both."""
        return Box(_meet(self.channels, other.channels), _meet(self.rows, other.rows))

    def within(self, outer: "Box") -> tuple[slice, slice]:
        """Its place in an array that has `outer`."""
        (channel, row), (channels, rows) = (outer.channels[0], outer.rows[0]), self
        return slice(channels[0] - channel, channels[1] - channel), slice(rows[0] - row, rows[1] - row)

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and rows."""
        return self.channels[1] - self.channels[0], self.rows[1] - self.rows[0]

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return 0 in self.shape


class LayerPart(NamedTuple):
    """By member of the team, what a layer needs of what goes in, and makes of what comes out."""

    needs: list[Box]
    makes: list[Box]


def _meet(one: Span, other: Span) -> Span:
    first = max(one[0], other[0])
    return first, max(first, min(one[1], other[1]))


def shares(count: int, size: int) -> list[Span]:
    """So many things dealt out to a team of this size, in order."""
    bounds = [count * member // size for member in range(size + 1)]
    return list(itertools.pairwise(bounds))


def whole(shape: Shape) -> Box:
    """All of an image's activations."""
    return Box((0, shape.channels), (0, shape.height))


def split(layers: Sequence[Any], order: Sequence[int], shapes: Sequence[Shape], size: int) -> list[LayerPart]:
    """What each member of a team of this size does for each layer, in this order of work.

    Parameters
    ----------
    layers, shapes : the network; see `mpips.algorithms.neural.settings`.
    """
    shape = shapes[0]
    made = [whole(shape)] * size  # everyone has the images
    by_rows = False
    found = []
    for index in order:
        layer, before = layers[index], shape
        weighted = isinstance(layer, settings.Convolution | settings.Connected)
        if weighted or isinstance(layer, settings.Pooling):
            shape = shapes[index + 1]
        if weighted:
            by_rows = size > 1 and getattr(layer, "split", "channels") == "rows"
            makes = _dealt(shape, size, by_rows)
        elif by_rows:
            makes = _dealt(shape, size, by_rows)
        else:
            makes = [Box(box.channels, (0, shape.height)) for box in made]
        needs = [_needed(layer, before, box, by_rows) for box in makes]
        found.append(LayerPart(needs, makes))
        made = makes
    return found


def _dealt(shape: Shape, size: int, by_rows: bool) -> list[Box]:
    if by_rows:
        return [Box((0, shape.channels), rows) for rows in shares(shape.height, size)]
    return [Box(channels, (0, shape.height)) for channels in shares(shape.channels, size)]


def _needed(layer: Any, before: Shape, makes: Box, by_rows: bool) -> Box:
    """What of a layer's input is needed to make this of its output."""
    if isinstance(layer, settings.Connected):
        return whole(before)
    if isinstance(layer, settings.Convolution):
        if not by_rows:
            return whole(before)
        return Box((0, before.channels), _window(makes.rows, layer.size, layer.stride, layer.padding, before.height))
    if isinstance(layer, settings.Pooling):
        rows = _window(makes.rows, layer.size, layer.step, 0, before.height) if by_rows else (0, before.height)
        return Box(makes.channels, rows)
    if isinstance(layer, settings.Normalisation):
        below = layer.size // 2
        reach = makes.channels[0] - below, makes.channels[1] + layer.size - 1 - below
        return Box(_meet(reach, (0, before.channels)), makes.rows)
    return makes


def _window(rows: Span, size: int, stride: int, padding: int, height: int) -> Span:
    """The rows under windows at these rows of positions."""
    if rows[0] == rows[1]:
        return 0, 0
    return _meet((rows[0] * stride - padding, (rows[1] - 1) * stride - padding + size), (0, height))
