"""Sparse logistic regression in batch: delayed block proximal gradient with a diagonal second-order term.

Minimises the logistic loss summed over all training rows plus l1·‖w‖₁ + l2/2·‖w‖². The features are cut into blocks; an
iteration takes one: every worker pushes the first and second derivatives over its own rows, the servers sum them and
take a proximal Newton step, and the workers fold the new weights into their scores. Iterations overlap by the table's
delay. Source: Li et al. 2014, Algorithm 3 and section 5.1; the bound on the second derivative: Yuan et al. 2010.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mpips.algorithms.linear.online import LogisticRegression
from mpips.algorithms.settings import BlockSettings
from mpips.kernels import columns as kernels
from mpips.tasks import Task
from mpips.worker.table import Table
from mpips.worker.worker import Worker

Array = np.ndarray[Any, Any]

VIOLATION = 1  # the state of the rule "proximal" that tells how far a weight is from optimal
LEAST_RADIUS = 0.1  # as in the rule
LONGEST_GAP = 10  # passes from one that looks at every weight to the next


class Block(NamedTuple):
    """A key range, where this worker's features of it begin and end among all of its own, and room for a number per row
    if any of its rows has several of them.
    """

    keys: range
    lo: int
    hi: int
    spans: Array


class Iteration(NamedTuple):
    """One that is under way: the columns whose derivatives were pushed, and the pull of their new weights."""

    block: Block
    columns: Array
    pull: Task[Any]


class Solver:
    """One worker's rows by column, its copy of their weights, and the iterations under way."""

    def __init__(self, worker: Worker, table: Table, settings: BlockSettings) -> None:
        rows = worker.rows()
        self._worker, self._table, self._settings = worker, table, settings
        self._keys, self._labels = rows.keys, rows.labels
        self._starts, self._rows, self._values = kernels.by_column(
            rows.indptr, rows.indices, rows.values, rows.keys.size
        )
        self._weights = np.zeros(rows.keys.size)
        self._scores, self._chances = np.zeros(len(rows)), np.full(len(rows), 0.5)
        self._radius = np.zeros(rows.keys.size)
        self._kkt = table.kkt
        self._reaches = np.empty(rows.indices.size, np.float32)
        self._blocks = list(self._cut())
        self._under_way: deque[Iteration] = deque()
        self._move(np.arange(rows.keys.size), table.pull(rows.keys).wait())

    def _cut(self) -> Iterator[Block]:
        rows, room = self._table.spec.rows, np.zeros(self._labels.size)
        for lo, hi in self._worker.feature_groups or [(0, rows)]:
            edges = np.linspace(lo, hi, 1 + -(-self._settings.blocks * (hi - lo) // rows)).astype(np.uint64)
            places = np.searchsorted(self._keys, edges)
            for i in range(edges.size - 1):
                if edges[i + 1] > edges[i]:
                    first, last = int(places[i]), int(places[i + 1])
                    several = kernels.reach(self._starts, self._rows, self._values, first, last, room, self._reaches)
                    keys = range(int(edges[i]), int(edges[i + 1]))
                    yield Block(keys, first, last, room if several else room[:0])

    def _move(self, columns: Array, weights: Array) -> None:
        """Bring the scores up to new weights of some columns."""
        steps = weights - self._weights[columns]
        self._weights[columns] = weights
        self._radius[columns] = 2 * np.abs(steps) + LEAST_RADIUS
        kernels.move(self._starts, self._rows, self._values, columns, steps, self._scores, self._chances)

    def _iterate(self, block: Block) -> None:
        """Push the derivatives of a block, once all but `delay` of the iterations before are folded in."""
        while any(iteration.block is block for iteration in self._under_way):
            self._fold(self._under_way.popleft())
        self._land(self._table.delay)
        columns = np.arange(block.lo, block.hi)
        if self._kkt is not None:
            columns = columns[self._kkt.choose(self._keys[columns])]
        both = np.empty((columns.size, 2))
        kernels.derivatives(
            self._starts,
            self._rows,
            self._values,
            self._reaches,
            columns,
            self._labels,
            self._chances,
            self._radius[columns],
            block.spans,
            both,
        )
        both[:, 1] *= 1 + len(self._under_way)  # as many steps are added up before any of them is seen
        keys = self._keys[columns]
        push = self._table.push(keys, both, within=block.keys)
        violated = (VIOLATION, self._kkt.tolerance) if self._kkt is not None else None
        pull = self._table.pull(keys, after=[push], above=violated)
        self._under_way.append(Iteration(block, columns, pull))

    def _land(self, delay: int | None) -> None:
        """Fold in what has come, and wait for the oldest iterations while more than `delay` are under way."""
        queue = self._under_way
        while queue and (queue[0].pull.done() or (delay is not None and len(queue) > delay)):
            self._fold(queue.popleft())

    def _fold(self, iteration: Iteration) -> None:
        """Take the new weights of an iteration over, and note which of them are not worth another look."""
        if self._kkt is None:
            self._move(iteration.columns, iteration.pull.wait())
            return
        weights, violating = iteration.pull.wait()
        self._move(iteration.columns, weights)
        self._kkt.learn(self._keys[iteration.columns], np.where(violating, np.inf, 0.0))

    def _objective(self) -> tuple[float, float]:
        """This worker's part of the objective, and its number of rows; the first worker has the penalty too."""
        part, rule = float(kernels.loss(self._scores, self._labels)), self._table.spec.rule
        if self._worker.index == 0:
            part += rule.get("l1", 0.0) * self._table.norm(1) + rule.get("l2", 0.0) / 2 * self._table.norm(2) ** 2
        return part, float(self._labels.size)

    def run(self, passes: int, seed: int) -> None:
        """Pass after pass, until the objective stays or there were enough."""
        settings, order = self._settings, np.random.default_rng(seed)
        before, next_whole, gap = np.inf, 0, 1
        for number in range(passes):
            whole = number == next_whole or self._kkt is None
            if whole and self._kkt is not None:
                self._kkt.forget()
                gap = min(gap + 1, LONGEST_GAP) if number > 1 else 1
                next_whole = number + gap
            before_pass = self._kkt.dropped_entries if self._kkt is not None else 0
            for i in order.permutation(len(self._blocks)) if settings.order == "random" else range(len(self._blocks)):
                self._iterate(self._blocks[i])
            self._land(0)  # so that the objective is that of one model
            filtered = self._kkt.dropped_entries - before_pass if self._kkt is not None else 0
            loss, rows, skipped, features = self._worker.sum(*self._objective(), filtered, self._keys.size).wait()
            if self._worker.index == 0:
                active = 1 - skipped / max(1, features)
                self._worker.report(**{"pass": number + 1}, objective=loss / rows, active=active)
            if whole and abs(before - loss) < settings.tolerance * loss:
                break
            before = loss


def solve(worker: Worker, table: str, passes: int, seed: int, settings: BlockSettings) -> None:
    """The program of a worker: solve, then evaluate."""
    weights = worker.table(table)
    Solver(worker, weights, settings).run(passes, seed)
    worker.train(LogisticRegression(weights))
