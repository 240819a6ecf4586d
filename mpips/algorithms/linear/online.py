"""Sparse logistic regression, asynchronous: the servers' update rule is the optimiser.

With the rule "ftrl" this is FTRL-proximal (McMahan et al. 2013), with "adagrad" AdaGrad (Duchi et al. 2011); l1 and
l2 are parameters of the rule. Source of the loop: Li et al. 2014, Algorithm 1.
"""

from typing import Any

import numpy as np

from mpips.dataserver.batch import Batch
from mpips.kernels.logistic import evaluate, loss_gradient
from mpips.worker.table import Table
from mpips.worker.worker import Worker


class LogisticRegression:
    """Trains the weights in a table of width 1 with the rows of batches."""

    def __init__(self, weights: Table) -> None:
        self._weights = weights

    def train(self, batch: Batch) -> float:
        """Pull the batch's weights, push their gradient; the loss is that of the weights pulled."""
        keys = self._weights.keys(batch.keys)
        weights = self._weights.pull(keys).wait()
        gradient = np.zeros_like(weights)
        loss = loss_gradient(batch.indptr, batch.indices, batch.values, batch.labels, weights, gradient)
        self._weights.push(keys, gradient)
        return float(loss)

    def evaluate(self, batch: Batch, counts: np.ndarray[Any, np.dtype[np.uint32]]) -> float:
        """Loss of the current weights, scores counted in `counts`, as `mpips.metrics.SCORES` has it."""
        weights = self._weights.pull(batch.keys).wait()
        return float(evaluate(batch.indptr, batch.indices, batch.values, batch.labels, weights, counts))


def train(worker: Worker, table: str) -> None:
    """The program of a worker."""
    worker.train(LogisticRegression(worker.table(table)))


def watch(worker: Worker, table: str) -> None:
    """The program of a group that evaluates the live model on the test rows, again and again."""
    worker.train(LogisticRegression(worker.table(table)))
