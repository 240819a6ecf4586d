"""Training a network: threads that learn from different images at once, pushes and pulls while they do; with mates, if
the network is in partitions.

Source: Chilimbi et al. 2014, sections 4.2 to 4.4.
"""

import math
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from mpips.algorithms.neural.flights import Flights
from mpips.algorithms.neural.layers import Connected, Convolution
from mpips.algorithms.neural.model import Model, Products
from mpips.algorithms.neural.network import Network
from mpips.algorithms.neural.partition import shares
from mpips.algorithms.neural.relay import Work
from mpips.algorithms.neural.settings import NeuralSettings
from mpips.dataserver.image_batch import ImageBatch
from mpips.kernels.activations import softmax
from mpips.messages import Workload
from mpips.worker.team import Regrouped
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
        self._in_step = network.delay == 0
        self._bounded = network.delay is not None
        self._seed = network.data.seed
        weights, shapes, team = network.weights, network.shapes, worker.team
        units = [shares(each.units, team.size)[team.member] for each in weights]
        self._model = Model([worker.table(each.name) for each in weights], weights, units)
        threads = self._settings.threads or worker.threads
        # of a team, whose members may be on nodes with other numbers of cores, all have as many steps under way: what
        # one makes for a step that another has not begun would fill its arena
        self._under_way = threads if team.size == 1 else max(self._settings.threads, self._settings.in_flight)
        networks = [
            Network(self._settings.layers, shapes, weights, self._model.values, team.member, team.size)
            for _ in range(self._under_way)
        ]
        self._flights = Flights(worker, networks, min(threads, self._under_way))
        self._multiplied = {number: each for number, each in enumerate(weights) if each.product}
        self._made: dict[tuple[int, int], Products] = {}
        self._read_for = -1  # the workload that the weights were read for last
        self._trains = False  # whether that is one to train on
        self.counts = network.classes, network.classes

    def train(self, batch: ImageBatch) -> float:
        """Learn from a batch step by step, each in a thread; push what has come of it."""
        try:
            return self._train(batch)
        except Regrouped:
            self._model.forget()
            raise

    def _train(self, batch: ImageBatch) -> float:
        workload, number = self._worker.doing
        self._begin(workload)
        self._model.meet(wait=False)
        rate = rate_at(self._settings, workload.epoch - 1 + workload.begun, self._passes)
        lesson = Lesson(
            batch,
            *shared(rate, self._settings.momentum, self._worker.peers),
            {number: self._products(number, len(batch)) for number in self._multiplied},
            f"{self._seed} {workload.epoch} {workload.part} {number}",
        )
        steps = self._steps(len(batch), self._settings.step or len(batch))
        works = [partial(self._learn, lesson, step) for step in steps]
        loss = float(sum(self._flights.fly(works, (workload.number, number))))
        self._model.meet(wait=True)
        self._model.push(lesson.products, self._rule(rate, len(steps)))
        if not self._in_step:
            self._model.pull()
        return loss

    def _begin(self, workload: Workload) -> None:
        """Have the weights that a batch is to begin with: those of now, unless what was pulled while the one before was
        computed will do.
        """
        another, pulled = workload.number != self._read_for, workload.train and self._trains
        self._read_for, self._trains = workload.number, workload.train
        if (another and (self._bounded or not pulled)) or (self._in_step and workload.train):
            self._model.refresh()

    def _rule(self, rate: float, steps: int) -> dict[str, float]:
        """How servers make one step of a sum of the gradients of some."""
        rate, momentum = shared(rate, self._settings.momentum, steps)
        return {"rate": rate, "momentum": momentum, "decay": self._settings.decay * steps}

    def _products(self, number: int, images: int) -> Products:
        weights = self._multiplied[number]
        made = self._made.get((number, images))
        if made is None:
            own = len(self._model.values[number])
            errors, fed = (np.empty((size, images), np.float32) for size in (own, weights.inputs + 1))
            made = self._made[number, images] = Products(errors, fed)
        return made

    @staticmethod
    def _steps(images: int, step: int) -> list[slice]:
        return [slice(start, min(start + step, images)) for start in range(0, images, step)]

    def _learn(self, lesson: Lesson, step: slice, network: Network) -> Work:
        """A step, on weights that others change meanwhile."""
        seed = zlib.crc32(f"{lesson.seed} {step.start}".encode())
        images, labels = lesson.batch.images[step], lesson.batch.labels[step]
        return network.learn(images, labels, seed, partial(self._descend, lesson, step))

    def _descend(
        self, lesson: Lesson, step: slice, number: int, layer: Connected | Convolution, units: slice, gradient: Array
    ) -> None:
        """Change the weights of some of a layer's units; the gradient is a sum over the images of a step."""
        images = step.stop - step.start
        self._model.descend(
            number, units, gradient, lesson.rate / images, lesson.momentum, self._settings.decay * images
        )
        if number in lesson.products and units.start == 0:
            assert isinstance(layer, Connected)
            lesson.products[number].errors[:, step] = layer.errors / images
            lesson.products[number].fed[:, step] = layer.fed

    def evaluate(self, batch: ImageBatch, counts: Array) -> float:
        """The loss summed over a batch's images; `counts` (classes, classes) by label and by what it is taken for."""
        workload, number = self._worker.doing
        self._begin(workload)
        cuts = self._steps(len(batch), -(-len(batch) // self._under_way))
        works = [partial(_scores, batch.images[cut]) for cut in cuts]
        loss = 0.0
        for scores, cut in zip(self._flights.fly(works, (workload.number, number)), cuts, strict=True):
            labels = batch.labels[cut]
            loss += softmax(scores, labels, np.empty_like(scores))
            np.add.at(counts, (labels, scores.argmax(axis=0)), 1)
        return loss


def _scores(images: Array, network: Network) -> Work:
    scores = yield from network.scores(images)
    return scores.copy()  # the network's next images use the memory


def train(worker: Worker, network: "JobNetwork") -> None:
    """The program of a worker."""
    with threadpool_limits(1):  # of BLAS: the threads are ours
        worker.train(Training(worker, network))
