"""The worker's role: the tables, and a loop that feeds an algorithm with batches and reports what came of them."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mpips.dataserver.batch import Batch
from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.messages import Begin, WorkDone, Workload
from mpips.metrics import BINS, pack
from mpips.scheduler.ring import Ring
from mpips.scheduler.view import View
from mpips.table import header_offsets
from mpips.worker.batches import Batches
from mpips.worker.keys import KeyRangeError
from mpips.worker.table import NonFiniteError, Table
from mpips.worker.task import TaskRefused, Tasks


class TrainingError(Error, RuntimeError):
    """An algorithm failed on a batch; the text says which."""


class Algorithm(Protocol):
    """What `Worker.train` runs: mathematics, and the order of pushes and pulls."""

    def train(self, batch: Batch) -> float:
        """Learn from a batch; the loss summed over its rows, before they were learned from."""

    def evaluate(self, batch: Batch, histogram: np.ndarray[Any, np.dtype[np.uint32]]) -> float:
        """The loss summed over a batch's rows; scores are counted in `histogram` (2, BINS), by label."""


class Worker:
    """A worker of a job, handed to the job's program.

    Attributes
    ----------
    rank : its rank.
    index, count : its number among the workers, and how many there are.
    tables : the job's tables by name.
    """

    def __init__(self, fabric: Fabric, view: View, delay: int | None) -> None:
        self.rank = fabric.rank
        self.index = view.workers.index(fabric.rank)
        self.count = len(view.workers)
        self.tables: dict[str, Table] = {}
        self._fabric = fabric
        self._view = view
        self._delay = delay
        self._tasks = Tasks(fabric)
        self._batches = Batches(fabric, view.scheduler)
        self._begun = False
        fabric.on(Begin, self._begin)

    def _begin(self, source: int, message: Begin) -> None:
        ring = Ring(self._view.servers, self._view.nodes)
        offsets = header_offsets(message.tables)
        for index, spec in enumerate(message.tables):
            heads = [ring.head(spec.name, shard) for shard in range(spec.shards)]
            self.tables[spec.name] = Table(spec, index, offsets[index], heads, self._fabric, self._tasks, self._delay)
        self._begun = True

    def wait_for_begin(self) -> None:
        """Wait until the tables are there; that takes as long as the data do."""
        scheduler = {self._view.scheduler}
        self._fabric.wait(lambda: self._begun, "the start of the job", lambda: scheduler, timeout=None)

    def table(self, name: str) -> Table:
        """A table of the job.

        Raises
        ------
        KeyError
            when there is none of this name.
        """
        return self.tables[name]

    def idle(self, until: Callable[[], bool], what: str = "its program", timeout: float | None = None) -> None:
        """Do nothing, but answer, until a condition holds; it is looked at now and then."""
        self._fabric.wait(until, what, timeout=timeout)

    def settle(self) -> None:
        """Wait until every push of this worker is acknowledged."""
        for table in self.tables.values():
            table.settle()

    def train(self, algorithm: Algorithm) -> None:
        """Run an algorithm on every workload that the scheduler hands out, until there is none left.

        Raises
        ------
        TrainingError
            when it pushes NaN or infinite values, or a key that the table does not have, or a server refuses.
        """
        rows, loss = 0, 0.0
        histogram = np.zeros((2, BINS), np.uint32)
        for workload, number, batch in self._batches:
            try:
                loss += algorithm.train(batch) if workload.train else algorithm.evaluate(batch, histogram)
            except (KeyRangeError, NonFiniteError, TaskRefused, ArenaFull) as error:
                place = f"epoch {workload.epoch}, batch {number} of data server {workload.data_server}"
                raise TrainingError(f"worker {self.rank}, {place}: {error}") from error
            rows += len(batch)
            if number == workload.batches[-1]:
                packed = b"" if workload.train else pack(histogram)
                self._after_pushes(self._reporter(workload, rows, loss, packed))
                rows, loss = 0, 0.0
                histogram[:] = 0
        self.settle()

    def _reporter(self, workload: Workload, rows: int, loss: float, histogram: bytes) -> Callable[[], None]:
        message = WorkDone(workload.number, rows, loss, histogram)
        return lambda: self._fabric.send(self._view.scheduler, message)

    def _after_pushes(self, then: Callable[[], None]) -> None:
        """Call `then` once all pushes made so far are acknowledged."""
        open_pushes = [push for table in self.tables.values() for push in table.unfinished()]
        left = [len(open_pushes)]
        if not open_pushes:
            then()

        def one() -> None:
            left[0] -= 1
            if left[0] == 0:
                then()

        for push in open_pushes:
            push.on_end(one)
