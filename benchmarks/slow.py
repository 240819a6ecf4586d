"""A rank of a job whose first worker computes more slowly than the others; every worker says in the end what it did all
the time. `delay.py` starts it under mpirun:

python slow.py JOB [--times 3] [--row 3e-6] [--set a.b=value …]
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mpips.algorithms.linear import LogisticRegression
from mpips.dataserver.batch import EMPTY, Batch
from mpips.start import plan_of, run_plan

PARTS = ("computing", "a workload", "a batch")


class Paced:
    """A table to whose user it takes long to compute: from a pull until the push that follows.

    The surplus is slept. So it takes no core from other ranks, and the update is as stale as a slow worker's would be.

    Attributes
    ----------
    least : seconds that the computing takes at least, before it is slowed.
    """

    def __init__(self, table: Any, times: float) -> None:
        self.keys = table.keys
        self.least = 0.0
        self._table, self._times = table, times
        self._pulled = 0.0

    def pull(self, keys: Any) -> Any:
        """As the table has it."""
        self._pulled = time.perf_counter()
        return self._table.pull(keys)

    def push(self, keys: Any, values: Any) -> Any:
        """As the table has it, but later."""
        taken = time.perf_counter() - self._pulled
        time.sleep(self._times * max(self.least, taken) - taken)
        return self._table.push(keys, values)


class Watched(LogisticRegression):
    """The algorithm; its time, and its worker's waits, are added up from the first batch to the last.

    Attributes
    ----------
    seconds : all of that time; "computing", and the waits for "a workload" and "a batch", are parts of it.
    """

    def __init__(self, worker: Any, table: Paced, row: float) -> None:
        super().__init__(table)  # type: ignore[arg-type]
        self.seconds: dict[str, float] = {}
        self._table, self._row = table, row
        self._parts: Counter[str] = Counter()
        self._began = 0.0
        self._wait = worker._fabric.wait
        worker._fabric.wait = self._timed_wait

    def _timed_wait(self, done: Any, what: Any, *more: Any, **named: Any) -> None:
        begin = time.perf_counter()
        self._wait(done, what, *more, **named)
        if isinstance(what, str):
            self._parts["a batch" if what.startswith("batch") else what] += time.perf_counter() - begin

    def train(self, batch: Batch) -> float:
        """Learn from a batch, in the time that it is to take."""
        self._table.least = self._row * len(batch)
        begin = time.perf_counter()
        if not self.seconds:
            self._began = begin
            self._parts.clear()
        loss = super().train(batch)
        end = time.perf_counter()
        self._parts["computing"] += end - begin
        self.seconds = {"all": end - self._began, **{name: self._parts[name] for name in PARTS}}
        return loss


def warm_up(worker: Any, table: Any) -> None:
    """Load the kernels, and wait until all workers have: else the first to be ready does most of a short job."""
    LogisticRegression(table).train(EMPTY)
    first = table.keys(np.zeros(1, np.uint64))
    table.push(first, 0.0 * table.pull(first).wait()).wait()
    worker.sum(0.0).wait()
    if worker.index == 0:
        worker.report(ready=1.0)


def main() -> None:
    """Run the job; the scheduler's rank prints what the workers said as a JSON line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("job", type=Path)
    arguments.add_argument("--times", type=float, default=3.0, help="how many times longer the slow worker computes")
    arguments.add_argument("--row", type=float, default=0.0, help="seconds that computing on a row takes at least")
    arguments.add_argument("--set", action="append", default=[])
    given = arguments.parse_args()
    plan = plan_of(given.job, given.set)

    def program(worker: Any) -> dict[str, float]:
        table = Paced(worker.table(plan.model), given.times if worker.index == 0 else 1.0)
        warm_up(worker, table)
        watched = Watched(worker, table, given.row)
        worker.train(watched)
        return watched.seconds

    outcome = run_plan(replace(plan, program=program))
    if outcome.results:
        print(json.dumps(outcome.results), flush=True)


if __name__ == "__main__":
    main()
