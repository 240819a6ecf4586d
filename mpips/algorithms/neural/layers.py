"""The layers of a network at work: activations forward, error gradients back.

Activations of n images have the shape (channels, height, width, n), see `mpips.kernels.convolution`. A layer is made
for one thread and one n, and keeps its results in memory of its own, which the next call uses again. What has weights
takes them as a matrix (units, inputs + 1), the bias last, and after `backward` gives the gradient of the loss by them,
summed over the images, for some units at a time.

What is made of a part of an image, see `mpips.algorithms.neural.partition`, has the shape of this part.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from mpips.algorithms.neural import settings
from mpips.algorithms.neural.settings import Shape
from mpips.kernels.activations import drop, drop_back, normalise, normalise_back, rectify, rectify_back
from mpips.kernels.convolution import add_columns, columns, pool, unpool

Array = np.ndarray[Any, Any]

CACHE = 1 << 19  # bytes of columns that are made at once: half of a core's second-level cache
GRADIENT = 1 << 24  # bytes of a gradient that are made at once; with much less BLAS is slow


class AtWork(Protocol):
    """A layer at work."""

    def forward(self, values: Array, seed: int | None) -> Array:
        """What comes out of what goes in, which may change; a seed: in training."""

    def backward(self, errors: Array) -> Array | None:
        """The gradient by what has gone in, from that by what came out, which may change; None when nobody needs it."""


class Scratch:
    """Memory that the layers of a thread use one after the other, so that it stays in the cache."""

    def __init__(self, dtype: Any) -> None:
        self._memory = np.empty(0, dtype)

    def take(self, rows: int, columns: int) -> Array:
        """A matrix of whatever was there."""
        if self._memory.size < rows * columns:
            self._memory = np.empty(rows * columns, self._memory.dtype)
        return self._memory[: rows * columns].reshape(rows, columns)


class Convolution:
    """As a matrix product over a few rows of pixels at a time, so that their columns stay in the cache.

    Above the image, or the part of it, there are `up` rows of padding.
    """

    def __init__(
        self,
        layer: settings.Convolution,
        before: Shape,
        after: Shape,
        up: int,
        weights: Array,
        n: int,
        scratch: tuple[Scratch, Scratch],
        first: bool,
    ) -> None:
        dtype = weights.dtype
        self._gradient = np.empty_like(weights)
        self._weights = weights
        self._turned = (layer.size, layer.stride, up, layer.padding)
        self._after = after
        self._inputs = before.channels * layer.size**2
        self._run = after.width * n
        self._rows = max(1, min(after.height, CACHE // (dtype.itemsize * (self._inputs + 1) * self._run)))
        self._scratch = scratch
        self._part = np.empty_like(weights)
        self._out = np.empty((*after, n), dtype)
        self._back = None if first else np.empty((*before, n), dtype)

    def _blocks(self) -> list[tuple[int, int, slice]]:
        """First row and number of rows of each block, and where its outputs are."""
        found = []
        for top in range(0, self._after.height, self._rows):
            rows = min(self._rows, self._after.height - top)
            found.append((top, rows, slice(top * self._run, (top + rows) * self._run)))
        return found

    def _columns(self, values: Array, top: int, rows: int) -> Array:
        """The patches of a block as columns, and a row of ones for the bias."""
        found = self._scratch[0].take(self._inputs + 1, rows * self._run)
        columns(values, top, rows, self._after.width, *self._turned, found[:-1])
        found[-1] = 1
        return found

    def forward(self, values: Array, seed: int | None) -> Array:
        """As `AtWork.forward`."""
        self._values = values
        out = self._out.reshape(self._after.channels, self._after.height * self._run)
        for top, rows, place in self._blocks():
            np.matmul(self._weights, self._columns(values, top, rows), out=out[:, place])
        return self._out

    def backward(self, errors: Array) -> Array | None:
        """As `AtWork.backward`."""
        errors = errors.reshape(self._after.channels, self._after.height * self._run)
        self._gradient[:] = 0
        if self._back is not None:
            self._back[:] = 0
        for top, rows, place in self._blocks():
            found = self._columns(self._values, top, rows)
            np.matmul(errors[:, place], found.T, out=self._part)
            self._gradient += self._part
            if self._back is not None:
                matrix = self._scratch[1].take(self._inputs, rows * self._run)
                np.matmul(self._weights[:, :-1].T, errors[:, place], out=matrix)
                add_columns(matrix, top, rows, self._after.width, *self._turned, self._back)
        return self._back

    def gradients(self) -> Iterator[tuple[slice, Array]]:
        """All units at once."""
        yield slice(0, len(self._gradient)), self._gradient


class Pooling:
    """The largest of every window; with `over` the errors go where the values are, which nobody needs any more."""

    def __init__(self, layer: settings.Pooling, before: Shape, after: Shape, n: int, dtype: Any, over: bool) -> None:
        self._window = layer.size, layer.step
        self._out = np.empty((*after, n), dtype)
        self._place = np.empty((*after, n), np.uint8)
        self._back: Array | None = None if over else np.empty((*before, n), dtype)

    def forward(self, values: Array, seed: int | None) -> Array:
        """As `AtWork.forward`."""
        if self._back is None:
            self._over = values
        pool(values, *self._window, self._out, self._place)
        return self._out

    def backward(self, errors: Array) -> Array:
        """As `AtWork.backward`."""
        back = self._over if self._back is None else self._back
        unpool(errors.reshape(self._out.shape), self._place, *self._window, back)
        return back


class Connected:
    """A matrix product; what has gone in (inputs + 1, n), the last row ones, and the errors (units, n) stay in `fed`
    and `errors` until the next.
    """

    def __init__(self, weights: Array, n: int, first: bool) -> None:
        units, inputs = weights.shape
        self._units = max(1, min(units, GRADIENT // (inputs * weights.itemsize)))
        self._gradient = np.empty((self._units, inputs), weights.dtype)
        self.fed = np.ones((inputs, n), weights.dtype)
        self.errors = np.empty((units, n), weights.dtype)
        self._weights = weights
        self._out = np.empty((units, 1, 1, n), weights.dtype)
        self._back = None if first else np.empty((inputs - 1, n), weights.dtype)

    def forward(self, values: Array, seed: int | None) -> Array:
        """As `AtWork.forward`."""
        self._shape = values.shape
        self.fed[:-1] = values.reshape(self.fed[:-1].shape)
        np.matmul(self._weights, self.fed, out=self._out.reshape(self.errors.shape))
        return self._out

    def backward(self, errors: Array) -> Array | None:
        """As `AtWork.backward`."""
        self.errors = errors.reshape(self.errors.shape)
        if self._back is None:
            return None
        return np.matmul(self._weights[:, :-1].T, self.errors, out=self._back).reshape(self._shape)

    def gradients(self) -> Iterator[tuple[slice, Array]]:
        """Some units after the others, each time in the same memory."""
        for first in range(0, len(self.errors), self._units):
            errors = self.errors[first : first + self._units]
            yield slice(first, first + len(errors)), np.matmul(errors, self.fed.T, out=self._gradient[: len(errors)])


class Relu:
    """In place."""

    def forward(self, values: Array, seed: int | None) -> Array:
        """As `AtWork.forward`."""
        rectify(values.reshape(-1))
        self._values = values
        return values

    def backward(self, errors: Array) -> Array:
        """As `AtWork.backward`."""
        rectify_back(self._values.reshape(-1), errors.reshape(-1))
        return errors


class Dropout:
    """In place; each of a network draws other numbers. `first` is the place of the part's first number in the whole,
    `apart` how far its channels lie from each other there.
    """

    def __init__(self, layer: settings.Dropout, before: Shape, first: int, apart: int, n: int, number: int) -> None:
        self._share = layer.share
        self._number = number
        self._place = first * n, apart * n
        self._kept = np.empty((before.channels, before.height * before.width * n), np.uint8)

    def forward(self, values: Array, seed: int | None) -> Array:
        """As `AtWork.forward`."""
        if seed is not None:
            flat = values.reshape(self._kept.shape)
            drop(flat, self._share, (seed << 8) + self._number, *self._place, self._kept)
        return values

    def backward(self, errors: Array) -> Array:
        """As `AtWork.backward`."""
        drop_back(errors.reshape(-1), self._share, self._kept.reshape(-1))
        return errors


class Normalisation:
    """Over neighbouring channels, of which only `own` come out."""

    def __init__(self, layer: settings.Normalisation, before: Shape, own: slice, n: int, dtype: Any) -> None:
        self._layer = layer
        self._own = own
        self._errors = np.zeros((before.channels, before.height * before.width * n), dtype)
        shape = before.channels, before.height * before.width * n
        self._out, self._squares, self._back = (np.empty(shape, dtype) for _ in range(3))

    def forward(self, values: Array, seed: int | None) -> Array:
        """As `AtWork.forward`."""
        layer, self._values = self._layer, values
        flat = values.reshape(self._out.shape)
        normalise(flat, layer.size, layer.alpha, layer.beta, layer.bias, self._squares, self._out)
        return self._out.reshape(values.shape)[self._own]

    def backward(self, errors: Array) -> Array:
        """As `AtWork.backward`."""
        layer, shape = self._layer, self._out.shape
        flat = self._values.reshape(shape), layer.size, layer.alpha, layer.beta, self._squares
        self._errors[self._own] = errors.reshape(self._errors[self._own].shape)
        normalise_back(*flat, self._out, self._errors, self._back)
        return self._back.reshape(self._values.shape)
