"""The ledger of workloads: which batches were handed to whom, which are done, when an epoch ends. Pure."""

from collections import deque
from typing import Any

import msgspec
import numpy as np

from mpips.messages import Workload

WORKLOADS_PER_WORKER = 8
MOST_BATCHES = 64


class Batches(msgspec.Struct, frozen=True):
    """What a data server has: batches 0..train-1 to train on, then `test` batches to evaluate."""

    data_server: int
    train: int
    test: int


class Ledger:
    """Workloads of a job: an epoch's train batches in a seeded order, and now and then an evaluation of all test
    batches.

    An epoch's workloads are handed out while the last of the epoch before are under way, unless an evaluation stands
    between them: that waits for every push, and holds the next epoch back until it is over.

    Parameters
    ----------
    batches : what each data server has.
    passes : epochs.
    evaluate_every : epochs from one evaluation to the next; 0: only after the last.
    seed : of the order of batches.
    workers : how many there are; a worker gets about 8 workloads an epoch.
    progress : what `progress` gave when a checkpoint was written, to go on from there.
    """

    def __init__(
        self,
        batches: list[Batches],
        passes: int,
        evaluate_every: int,
        seed: int,
        workers: int,
        progress: dict[str, Any] | None = None,
    ) -> None:
        self._batches = batches
        self._passes = passes
        self._every = evaluate_every
        self._seed = seed
        self._size = max(1, min(MOST_BATCHES, sum(b.train for b in batches) // (workers * WORKLOADS_PER_WORKER)))
        self._queue: deque[Workload] = deque()
        self._given: dict[int, tuple[int, Workload]] = {}
        self._numbers = 0
        self._left: dict[tuple[int, bool], int] = {}
        self._done: dict[int, list[list[int]]] = {}
        self._evaluated: set[int] = set()
        self.epoch = 0
        self.evaluating = False
        if progress is not None:
            self._resume(progress)
        self._fill()

    def _resume(self, progress: dict[str, Any]) -> None:
        self.epoch = int(progress["epochs"])
        if progress["batches"] == [[b.train, b.test] for b in self._batches] and progress["seed"] == self._seed:
            self._size = int(progress["size"])
            self._done = {int(epoch): [list(first) for first in done] for epoch, done in progress["done"].items()}

    @property
    def finished_epochs(self) -> int:
        """Epochs of which every workload is done."""
        return min((epoch for epoch, train in self._left if train), default=self.epoch + 1) - 1

    def progress(self) -> dict[str, Any]:
        """What is done, as JSON has it: whole epochs, and the finished workloads of those begun."""
        return {
            "epochs": self.finished_epochs,
            "done": {str(epoch): done for epoch, done in self._done.items()},
            "size": self._size,
            "seed": self._seed,
            "batches": [[b.train, b.test] for b in self._batches],
        }

    # --- handing out ------------------------------------------------------------------------------------------------

    def next(self, worker: int) -> Workload | None:
        """The next workload for a worker, or None while there is none to give."""
        if not self._queue:
            self._fill()
        if not self._queue:
            return None
        workload = self._queue.popleft()
        self._given[workload.number] = (worker, workload)
        return workload

    @property
    def over(self) -> bool:
        """Whether every workload of the job is done."""
        return self.epoch >= self._passes and not self._left and not self._evaluation_due(self.epoch)

    def done(self, number: int) -> Workload | None:
        """Cross a finished workload off; None when it was crossed off before."""
        entry = self._given.pop(number, None)
        if entry is None:
            return None
        workload = entry[1]
        stage = (workload.epoch, workload.train)
        self._left[stage] -= 1
        if workload.train:
            self._done.setdefault(workload.epoch, []).append(
                [self._position(workload.data_server), workload.batches[0]]
            )
        if self._left[stage] == 0:
            del self._left[stage]
            self._done = {epoch: done for epoch, done in self._done.items() if epoch > self.finished_epochs}
            if not workload.train:
                self.evaluating = False
        return workload

    def _position(self, data_server: int) -> int:
        """A data server's place among all: what stays when a job goes on with other ranks."""
        return next(i for i, batches in enumerate(self._batches) if batches.data_server == data_server)

    @property
    def under_way(self) -> bool:
        """Whether any workload is out and not done."""
        return bool(self._given)

    def stage_is_done(self, workload: Workload) -> bool:
        """Whether no workload of this one's epoch, and of its kind, is left."""
        return (workload.epoch, workload.train) not in self._left

    def _evaluation_due(self, epoch: int) -> bool:
        if epoch == 0 or epoch in self._evaluated or not any(b.test for b in self._batches):
            return False
        return epoch == self._passes or (self._every > 0 and epoch % self._every == 0)

    def _fill(self) -> None:
        """Queue the next stage, if it may begin."""
        while not self._queue and not self.evaluating:
            if self._evaluation_due(self.epoch):
                if self._left:
                    return
                self._evaluated.add(self.epoch)
                self.evaluating = True
                self._add(self.epoch, False)
            elif self.epoch < self._passes and len(self._left) < 2:
                self.epoch += 1
                self._add(self.epoch, True)
            else:
                return

    def _add(self, epoch: int, train: bool) -> None:
        order = np.random.default_rng([self._seed, epoch])
        skip = [tuple(first) for first in self._done.get(epoch, [])] if train else []
        workloads = []
        for position, batches in enumerate(self._batches):
            numbers = order.permutation(batches.train) if train else batches.train + np.arange(batches.test)
            for i in range(0, numbers.size, self._size):
                part = [int(number) for number in numbers[i : i + self._size]]
                if (position, part[0]) not in skip:
                    workloads.append((batches.data_server, part))
        for i in order.permutation(len(workloads)) if train else range(len(workloads)):
            self._numbers += 1
            self._queue.append(Workload(self._numbers, epoch, train, *workloads[int(i)]))
        if workloads:
            self._left[epoch, train] = len(workloads)
        elif not train:
            self.evaluating = False
