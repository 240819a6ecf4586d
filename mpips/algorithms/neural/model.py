"""The weights of a network as a worker has them: a copy that its threads change at once, without a lock, and what goes
to the servers and comes from them.

Source: Chilimbi et al. 2014, section 4.2 (fast weight updates) and 4.4 (the parameter server).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpips.algorithms.neural.partition import Span
from mpips.algorithms.neural.settings import Weights
from mpips.kernels.descent import depart, descend, meet, remember
from mpips.tasks import Task
from mpips.worker.table import Table

Array = np.ndarray[Any, Any]


class Products(NamedTuple):
    """What the gradient of a layer is the product of, for all images of a batch.

    Parameters
    ----------
    errors : (units of this worker, images), the gradient of the loss by what came out, divided by the images of a step.
    fed : (inputs + 1, images), what has gone in, the last row ones.
    """

    errors: Array
    fed: Array


class Model:
    """Of each layer with weights a matrix (units, inputs + 1), the bias last; of a team's, each member has some units.

    A pull is made while the worker computes. What it brings is what servers had when all pushes of this worker were
    applied; what others have added since the pull before is added here, and what this worker has done meanwhile stays.

    Parameters
    ----------
    tables, weights : of each layer with weights, from the first to the last.
    units : which of each layer's units this worker has.

    Attributes
    ----------
    values : the matrices; threads read them while others write.
    """

    def __init__(self, tables: Sequence[Table], weights: Sequence[Weights], units: Sequence[Span]) -> None:
        self._tables = tables
        self._units = [range(*span) for span in units]
        shapes = [(len(own), each.inputs + 1) for each, own in zip(weights, self._units, strict=True)]
        kinds = [table.spec.numpy_dtype for table in tables]
        self.values, self._velocity, self._known, self._pulled = (
            [np.zeros(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)] for _ in range(4)
        )
        self._update = {
            number: np.empty_like(values)
            for number, (values, each) in enumerate(zip(self.values, weights, strict=True))
            if not each.product
        }
        self._pulls: list[Task[Any]] = []
        self._pushes: list[Task[Any]] = []

    def pull(self) -> None:
        """Begin to read what servers have, with all pushes of this worker."""
        after = [[push] for push in self._pushes] or [[] for _ in self._tables]
        self._pulls = [
            table.pull(own, out, after=pushes)
            for table, own, out, pushes in zip(self._tables, self._units, self._pulled, after, strict=True)
        ]

    def meet(self, wait: bool) -> None:
        """Take in what has been pulled, if it is there or `wait` says so."""
        if not self._pulls or not (wait or all(pull.finished for pull in self._pulls)):
            return
        for pull in self._pulls:
            pull.wait()
        self._pulls = []
        for values, known, pulled in zip(self.values, self._known, self._pulled, strict=True):
            meet(values.reshape(-1), known.reshape(-1), pulled.reshape(-1))

    def refresh(self) -> None:
        """Have what servers have now."""
        self.meet(wait=True)
        self.pull()
        self.meet(wait=True)

    def forget(self) -> None:
        """What was done since the last push never was; all else that is known of where steps were going is too old."""
        for values, known, velocity in zip(self.values, self._known, self._velocity, strict=True):
            values[:], velocity[:] = known, 0.0

    def push(self, products: Mapping[int, Products], rule: dict[str, float]) -> None:
        """Send what has been added to the weights since the last push; of those of which servers are to make the steps,
        by this rule, what their gradients are the product of.
        """
        self._pushes = []
        for number, (table, own) in enumerate(zip(self._tables, self._units, strict=True)):
            values, known = self.values[number].reshape(-1), self._known[number].reshape(-1)
            if number in products:
                remember(values, known)
                self._pushes.append(table.push_product(*products[number], within=own, rule=rule))
            else:
                update = self._update[number]
                depart(values, known, update.reshape(-1))
                self._pushes.append(table.push(own, update))

    def descend(self, number: int, units: slice, gradient: Array, rate: float, momentum: float, decay: float) -> None:
        """A step of some of a layer's units against a gradient; called by any thread."""
        descend(
            self.values[number][units].reshape(-1),
            self._velocity[number][units].reshape(-1),
            gradient.reshape(-1),
            rate,
            momentum,
            decay,
        )
