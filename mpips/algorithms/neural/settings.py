"""What the job file may say of a network and how it is trained, ``[algorithm.neural]``; and the shapes that follow."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from mpips.errors import Error

Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Above = Annotated[float, msgspec.Meta(gt=0)]
AtLeast = Annotated[float, msgspec.Meta(ge=0)]


class LayerError(Error, ValueError):
    """A layer that does not fit to those before it.

    Attributes
    ----------
    index : the layer's number, from 0.
    key : what of it is wrong; None: the layer as a whole.
    """

    def __init__(self, index: int, key: str | None, text: str) -> None:
        super().__init__(text)
        self.index = index
        self.key = key


class Shape(NamedTuple):
    """Of an image, or of a layer's activations for one; a layer without neighbourhood has height and width 1."""

    channels: int
    height: int = 1
    width: int = 1

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return self.channels * self.height * self.width

    def __str__(self) -> str:
        return f"{self.channels}×{self.height}×{self.width}" if self.height * self.width > 1 else str(self.channels)


class Layer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="layer"):
    """One ``{ layer = "…", … }`` of ``algorithm.neural.layers``."""

    def after(self, before: Shape, index: int, classes: int) -> Shape:
        """The shape of what comes out, by that of what goes in.

        Raises
        ------
        LayerError
            when that can't go in.
        """
        return before

    def inputs(self, before: Shape) -> int | None:
        """How many numbers each of its units weighs, without the bias; None of a layer without weights."""
        return None


class Convolution(Layer, frozen=True, kw_only=True, tag="convolution"):
    """`channels` filters of size·size pixels, moved by `stride`; `padding` zeros around the image.

    `split` is what the members of a team share out: its "channels", or "rows" of the image.
    """

    channels: Count
    size: Count
    stride: Count = 1
    padding: Annotated[int, msgspec.Meta(ge=0)] = 0
    split: Literal["channels", "rows"] = "channels"

    def after(self, before: Shape, index: int, classes: int) -> Shape:
        """As `Layer.after`."""
        height, width = (side + 2 * self.padding - self.size for side in before[1:])
        if min(height, width) < 0:
            raise LayerError(index, "size", f"filters of {self.size}×{self.size} don't fit into {before}")
        if self.padding >= self.size:
            raise LayerError(index, "padding", f"must be below size, {self.size}: else filters see nothing but zeros")
        return Shape(self.channels, height // self.stride + 1, width // self.stride + 1)

    def inputs(self, before: Shape) -> int:
        """As `Layer.inputs`."""
        return before.channels * self.size**2


class Pooling(Layer, frozen=True, kw_only=True, tag="pooling"):
    """The largest of every size·size window, moved by `stride`, by default its size; what is left over is left out."""

    size: Annotated[int, msgspec.Meta(ge=1, le=15)] = 2
    stride: Count | None = None

    @property
    def step(self) -> int:
        """From one window to the next."""
        return self.stride or self.size

    def after(self, before: Shape, index: int, classes: int) -> Shape:
        """As `Layer.after`."""
        height, width = (side - self.size for side in before[1:])
        if min(height, width) < 0:
            raise LayerError(index, "size", f"windows of {self.size}×{self.size} don't fit into {before}")
        return Shape(before.channels, height // self.step + 1, width // self.step + 1)


class Connected(Layer, frozen=True, kw_only=True, tag="connected"):
    """Units that weigh all that comes in; without `units` as many as there are classes.

    `push` is how its updates go to the servers: as a "gradient", or as the "activations" and error gradients that it is
    the product of, which servers multiply out; "auto" takes what is fewer bytes.
    """

    units: Count | None = None
    push: Literal["auto", "gradient", "activations"] = "auto"

    def after(self, before: Shape, index: int, classes: int) -> Shape:
        """As `Layer.after`."""
        return Shape(self.units or classes)

    def inputs(self, before: Shape) -> int:
        """As `Layer.inputs`."""
        return before.size


class Relu(Layer, frozen=True, kw_only=True, tag="relu"):
    """max(x, 0)."""


class Dropout(Layer, frozen=True, kw_only=True, tag="dropout"):
    """In training, a `share` of what comes in is left out, the rest scaled up; then all is used."""

    share: Share = 0.5


class Normalisation(Layer, frozen=True, kw_only=True, tag="normalisation"):
    """Local response normalisation over `size` neighbouring channels: x / (bias + alpha/size · Σ x²)^beta."""

    size: Count = 5
    alpha: AtLeast = 1e-4
    beta: AtLeast = 0.75
    bias: Above = 1.0


AnyLayer = Convolution | Pooling | Connected | Relu | Dropout | Normalisation


class NeuralSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network, and how it is trained.

    Parameters
    ----------
    layers : from the image to the classes; the cross-entropy of their softmax is what is minimised.
    rate, momentum, decay : of gradient descent: v ← momentum·v − rate·(g + decay·w); w ← w + v, where g is the mean
        over `step` images.
    schedule : of the rate: "constant", or "cosine", which falls to nothing over all epochs.
    warmup : epochs over which the rate rises from a tenth to all of it.
    step : images that a gradient is the mean of; 0: a whole batch of the data.
    threads : of each worker, which train on different steps of a batch at once; 0: its share of the node's cores.
    partitions : workers that have a copy of the network together, a *team*; each has a part of every layer.
    in_flight : steps that a team has under way at once, so that nobody waits for what a mate has not made yet; at least
        one for each thread.
    """

    layers: Annotated[tuple[AnyLayer, ...], msgspec.Meta(min_length=1)]
    rate: Above = 0.01
    momentum: Share = 0.9
    decay: AtLeast = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: AtLeast = 0.0
    step: Annotated[int, msgspec.Meta(ge=0)] = 0
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    partitions: Count = 1
    in_flight: Count = 2


class Weights(NamedTuple):
    """A layer's weights: a table of a row for each unit, its bias last.

    Parameters
    ----------
    name : of the table.
    layer : the layer's number.
    units, inputs : rows, and weights in each without the bias.
    product : whether gradients go to the servers as the activations and error gradients that they are the product of.
    """

    name: str
    layer: int
    units: int
    inputs: int
    product: bool


def shapes_of(layers: Sequence[Any], image: Shape, classes: int) -> list[Shape]:
    """What goes into each layer, and what comes out of the last.

    Raises
    ------
    LayerError
        when a layer does not fit, or the last has not a number for each class.
    """
    shapes = [image]
    for index, layer in enumerate(layers):
        shapes.append(layer.after(shapes[-1], index, classes))
    last = len(layers) - 1
    if shapes[-1] != Shape(classes):
        key = "units" if isinstance(layers[last], Connected) else None
        raise LayerError(last, key, f"the network ends with {shapes[-1]} numbers, but the data have {classes} classes")
    return shapes


def weights_of(layers: Sequence[Any], shapes: Sequence[Shape], batch: int) -> list[Weights]:
    """Of all layers that have any, in their order, for batches of so many images; `shapes` is of `shapes_of`.

    Which form is pushed does not depend on the partitions, so that a job may go on with others.
    """
    found: list[Weights] = []
    for index, (layer, before, after) in enumerate(zip(layers, shapes, shapes[1:], strict=False)):
        inputs = layer.inputs(before)
        if inputs is not None:
            kind = type(layer).__struct_config__.tag
            number = 1 + sum(each.name.startswith(kind) for each in found)
            units, push = after.channels, getattr(layer, "push", "gradient")
            fewer = batch * (units + inputs + 1) < units * (inputs + 1)
            product = push == "activations" or (push == "auto" and fewer)
            found.append(Weights(f"{kind}{number}", index, units, inputs, product))
    return found
