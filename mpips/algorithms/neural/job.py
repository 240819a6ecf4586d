"""A job file's network: what its workers run, and the tables of its weights."""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mpips.algorithms.neural.settings import NeuralSettings, Shape, Weights, shapes_of, weights_of
from mpips.dataserver.spec import DataSpec
from mpips.plan import Delay
from mpips.rule import fitted
from mpips.table import Normal, TableSpec

if TYPE_CHECKING:
    from mpips.job import Job


@dataclass(frozen=True)
class JobNetwork:
    """What follows from a job file.

    Attributes
    ----------
    settings, shapes, weights : the network.
    names : of the classes.
    passes : epochs in all, which the rate depends on.
    delay : batches that may be missing from the weights that one begins with, as `mpips.plan.Plan` has it.
    data, base : the images, and the folder that their paths are relative to.
    """

    settings: NeuralSettings
    shapes: list[Shape]
    weights: list[Weights]
    names: list[str]
    passes: int
    delay: Delay
    data: DataSpec
    base: Path

    @property
    def about(self) -> dict[str, Any]:
        """What a reader of a checkpoint needs to know; see `mpips.algorithms.neural.trained`."""
        network = {"layers": self.settings.layers, "image": self.shapes[0], "classes": self.names}
        found: dict[str, Any] = msgspec.to_builtins(network | {"data": self.data, "base": str(self.base)}, enc_hook=int)
        return {"network": found}

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def tables(self) -> list[TableSpec]:
        """One for each layer that has weights: a row for each unit, its bias last.

        They begin with numbers of variance 2 / inputs (He et al. 2015), and biases of 0.
        """
        return [
            fitted(
                TableSpec(
                    name=each.name,
                    rows=each.units,
                    width=each.inputs + 1,
                    rule=self._rule(each),
                    initial=Normal(
                        math.sqrt(2 / each.inputs), each.inputs, zlib.crc32(f"{self.data.seed} {each.name}".encode())
                    ),
                )
            )
            for each in self.weights
        ]

    def _rule(self, weights: Weights) -> dict[str, Any]:
        """Who is sent steps adds them; who is sent gradients makes the steps."""
        if not weights.product:
            return {"name": "add"}
        settings = self.settings
        return {
            "name": "momentum",
            "rate": settings.rate,
            "momentum": settings.momentum,
            "decay": settings.decay,
        }

    def train(self, worker: Any) -> None:
        """The program of a worker."""
        from mpips.algorithms.neural import training

        training.train(worker, self)

    watch = train  # a group that watches is given what to evaluate


def network_of(job: "Job") -> JobNetwork | None:
    """The network of a job; None when it has none."""
    settings = job.algorithm.neural
    if settings is None:
        return None
    from mpips.dataserver.image_files import kind_of

    kind = kind_of(job.data, job.base)
    shapes = shapes_of(settings.layers, Shape(*kind[:3]), len(kind.classes))
    weights = weights_of(settings.layers, shapes, job.data.batch)
    passes, delay = job.algorithm.passes, job.consistency.bound
    return JobNetwork(settings, shapes, weights, kind.classes, passes, delay, job.data, job.base)
