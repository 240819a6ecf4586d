"""Training a network: threads that learn from different images at once, pushes and pulls while they do.

Source: Chilimbi et al. 2014, sections 4.2 to 4.4.
"""

import math
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from mpips.algorithms.neural.layers import Connected, Convolution
from mpips.algorithms.neural.model import Model, Products
from mpips.algorithms.neural.network import Network
from mpips.algorithms.neural.settings import NeuralSettings
from mpips.dataserver.image_batch import ImageBatch
from mpips.kernels.activations import softmax
from mpips.worker.worker import Worker

if TYPE_CHECKING:
    from mpips.algorithms.neural.job import JobNetwork

Array = np.ndarray[Any, Any]

FIRST_RATE = 0.1  # of the rate, where it is to rise at first


def rate_at(settings: NeuralSettings, epochs: float, passes: int) -> float:
    """The rate when so many epochs of `passes` are over."""
    rate = settings.rate
    if settings.schedule == "cosine":
        rate *= 0.5 * (1.0 + math.cos(math.pi * min(1.0, epochs / passes)))
    if epochs < settings.warmup:
        rate *= FIRST_RATE + (1.0 - FIRST_RATE) * epochs / settings.warmup
    return rate


def shared(rate: float, momentum: float, steps: int) -> tuple[float, float]:
    """Rate and momentum of a velocity that forgets once in so many steps: as each worker's own does where several make
    steps, or a server's that is sent the sum of several gradients.

    So that it forgets as much until a gradient is as old, the momentum is smaller; that a gradient adds up to as much
    in the end, the rate is larger.
    """
    own: float = momentum**steps
    return rate * (1.0 - own) / (1.0 - momentum), own


class Lesson(NamedTuple):
    """A batch, and how to learn from it.

    Parameters
    ----------
    rate, momentum : of this worker.
    products : by the weights' number, of which servers make the steps: their gradients' factors are put here.
    seed : of what is dropped.
    """

    batch: ImageBatch
    rate: float
    momentum: float
    products: dict[int, Products]
    seed: str


class Training:
    """As `mpips.worker.worker.Algorithm`.

    Parameters
    ----------
    worker : whose tables have the weights.
    network : what is trained.
    """

    def __init__(self, worker: Worker, network: "JobNetwork") -> None:
        self._worker = worker
        self._settings = network.settings
        self._passes = network.passes
        self._in_step = network.in_step
        self._seed = network.data.seed
        weights, shapes = network.weights, network.shapes
        self._model = Model([worker.table(each.name) for each in weights], weights)
        threads = self._settings.threads or worker.threads
        self._networks = [Network(self._settings.layers, shapes, weights, self._model.values) for _ in range(threads)]
        self._multiplied = {number: each for number, each in enumerate(weights) if each.product}
        self._made: dict[tuple[int, int], Products] = {}
        self._evaluated = -1  # the workload that the weights were read for last; 0: they are trained on
        self.counts = network.classes, network.classes

    def train(self, batch: ImageBatch) -> float:
        """Learn from a batch step by step, each in a thread; push what has come of it."""
        if self._in_step or self._evaluated != 0:
            self._model.refresh()
        self._evaluated = 0
        self._model.meet(wait=False)
        workload, number = self._worker.doing
        rate = rate_at(self._settings, workload.epoch - 1 + workload.begun, self._passes)
        lesson = Lesson(
            batch,
            *shared(rate, self._settings.momentum, self._worker.peers),
            {number: self._products(number, len(batch)) for number in self._multiplied},
            f"{self._seed} {workload.epoch} {workload.part} {number}",
        )
        steps = self._steps(len(batch), self._settings.step or len(batch))
        threads = [
            partial(self._learn, network, lesson, steps[index :: len(self._networks)])
            for index, network in enumerate(self._networks)
        ]
        loss = sum(self._worker.together(threads))
        self._model.meet(wait=True)
        self._model.push(lesson.products, self._rule(rate, len(steps)))
        if not self._in_step:
            self._model.pull()
        return loss

    def _rule(self, rate: float, steps: int) -> dict[str, float]:
        """How servers make one step of a sum of the gradients of some."""
        rate, momentum = shared(rate, self._settings.momentum, steps)
        return {"rate": rate, "momentum": momentum, "decay": self._settings.decay * steps}

    def _products(self, number: int, images: int) -> Products:
        weights = self._multiplied[number]
        made = self._made.get((number, images))
        if made is None:
            errors, fed = (np.empty((size, images), np.float32) for size in (weights.units, weights.inputs + 1))
            made = self._made[number, images] = Products(errors, fed)
        return made

    @staticmethod
    def _steps(images: int, step: int) -> list[slice]:
        return [slice(start, min(start + step, images)) for start in range(0, images, step)]

    def _learn(self, network: Network, lesson: Lesson, steps: list[slice]) -> float:
        """A thread's part: step after step, on weights that others change meanwhile."""
        loss = 0.0
        for step in steps:
            seed = zlib.crc32(f"{lesson.seed} {step.start}".encode())
            images, labels = lesson.batch.images[step], lesson.batch.labels[step]
            loss += network.learn(images, labels, seed, partial(self._descend, lesson, step))[0]
        return loss

    def _descend(self, lesson: Lesson, step: slice, number: int, layer: Connected | Convolution) -> None:
        """Change a layer's weights; its gradient is a sum over the images of a step."""
        images = step.stop - step.start
        self._model.descend(
            number, layer.gradient, lesson.rate / images, lesson.momentum, self._settings.decay * images
        )
        if number in lesson.products:
            assert isinstance(layer, Connected)
            lesson.products[number].errors[:, step] = layer.errors / images
            lesson.products[number].fed[:, step] = layer.fed

    def evaluate(self, batch: ImageBatch, counts: Array) -> float:
        """The loss summed over a batch's images; `counts` (classes, classes) by label and by what it is taken for."""
        workload, _ = self._worker.doing
        if workload.number != self._evaluated:
            self._evaluated = workload.number
            self._model.refresh()
        cuts = self._steps(len(batch), -(-len(batch) // len(self._networks)))
        found = self._worker.together(
            [partial(network.scores, batch.images[cut]) for network, cut in zip(self._networks, cuts, strict=False)]
        )
        loss = 0.0
        for scores, cut in zip(found, cuts, strict=True):
            labels = batch.labels[cut]
            loss += softmax(scores, labels, np.empty_like(scores))[0]
            np.add.at(counts, (labels, scores.argmax(axis=0)), 1)
        return loss


def train(worker: Worker, network: "JobNetwork") -> None:
    """The program of a worker."""
    with threadpool_limits(1):  # of BLAS: the threads are ours
        worker.train(Training(worker, network))
