"""Training a network: threads that learn from different images at once, pushes and pulls while they do.

Source: Chilimbi et al. 2014, sections 4.2 to 4.4.
"""

import math
import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mpips.algorithms.neural.layers import Connected, Convolution
from mpips.algorithms.neural.model import Model
from mpips.algorithms.neural.network import Network
from mpips.algorithms.neural.settings import NeuralSettings, Shape, Weights
from mpips.dataserver.image_batch import ImageBatch
from mpips.kernels.activations import softmax
from mpips.worker.worker import Worker

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


def shared(rate: float, momentum: float, workers: int) -> tuple[float, float]:
    """Rate and momentum of each of some workers that all have a velocity of their own.

    A velocity forgets when its worker makes a step; so that it forgets as much until a gradient is as old, in steps of
    all, the momentum is smaller. That all gradients add up to as much then, the rate is larger.
    """
    own: float = momentum**workers
    return rate * (1.0 - own) / (1.0 - momentum), own


class Training:
    """As `mpips.worker.worker.Algorithm`.

    Parameters
    ----------
    worker : whose tables have the weights.
    settings, shapes, weights : the network.
    passes : epochs in all, which the rate depends on.
    in_step : whether a batch is to begin with all that was pushed before it was handed out; else with a pull that was
        made while the batch before was computed.
    seed : of what is dropped.
    """

    def __init__(
        self,
        worker: Worker,
        settings: NeuralSettings,
        shapes: Sequence[Shape],
        weights: Sequence[Weights],
        passes: int,
        in_step: bool,
        seed: int,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._passes = passes
        self._in_step = in_step
        self._seed = seed
        self._model = Model([worker.table(each.name) for each in weights], weights)
        threads = settings.threads or worker.threads
        self._networks = [Network(settings.layers, shapes, weights, self._model.values) for _ in range(threads)]
        self._classes = shapes[-1].channels
        self._evaluated = -1  # the workload that the weights were read for last; 0: they are trained on
        self.counts = self._classes, self._classes

    def train(self, batch: ImageBatch) -> float:
        """Learn from a batch step by step, each in a thread; push what has come of it."""
        if self._in_step or self._evaluated != 0:
            self._model.refresh()
        self._evaluated = 0
        self._model.meet(wait=False)
        workload, number = self._worker.doing
        rate = rate_at(self._settings, workload.epoch - 1 + workload.begun, self._passes)
        rate, momentum = shared(rate, self._settings.momentum, self._worker.peers)
        steps = self._steps(len(batch), self._settings.step or len(batch))
        seed = f"{self._seed} {workload.epoch} {workload.part} {number}"
        threads = [
            partial(self._learn, network, batch, steps[index :: len(self._networks)], rate, momentum, seed)
            for index, network in enumerate(self._networks)
        ]
        loss = sum(self._worker.together(threads))
        self._model.meet(wait=True)
        self._model.push()
        if not self._in_step:
            self._model.pull()
        return loss

    @staticmethod
    def _steps(images: int, step: int) -> list[slice]:
        return [slice(start, min(start + step, images)) for start in range(0, images, step)]

    def _learn(
        self, network: Network, batch: ImageBatch, steps: list[slice], rate: float, momentum: float, seed: str
    ) -> float:
        """A thread's part: step after step, on weights that others change meanwhile."""
        settings, loss = self._settings, 0.0
        for step in steps:
            images, labels = batch.images[step], batch.labels[step]
            # gradients are sums over the images
            descend = partial(self._descend, rate / len(labels), momentum, settings.decay * len(labels))
            number = zlib.crc32(f"{seed} {step.start}".encode())
            loss += network.learn(images, labels, number, descend)[0]
        return loss

    def _descend(self, rate: float, momentum: float, decay: float, number: int, layer: Connected | Convolution) -> None:
        self._model.descend(number, layer.gradient, rate, momentum, decay)

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


def train(
    worker: Worker,
    settings: NeuralSettings,
    shapes: Sequence[Shape],
    weights: Sequence[Weights],
    passes: int,
    in_step: bool,
    seed: int,
) -> None:
    """The program of a worker."""
    with threadpool_limits(1):  # of BLAS: the threads are ours
        worker.train(Training(worker, settings, shapes, weights, passes, in_step, seed))
