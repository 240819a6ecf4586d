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
    workers : how many there are; a worker gets about 8 workloads an epoch, or smaller ones if `delay` asks for it.
    delay : train batches that may be unfinished when another is handed out (the bounded delay of Li et al. 2014,
        section 3.5, with a batch as the task); None: any number. It may be changed at any time.
    progress : what `progress` gave when a checkpoint was written, to go on from there.
    """

    def __init__(
        self,
        batches: list[Batches],
        passes: int,
        evaluate_every: int,
        seed: int,
        workers: int,
        delay: int | None = None,
        progress: dict[str, Any] | None = None,
    ) -> None:
        self.delay = delay
        self.epoch = 0
        self.evaluating = False
        self._batches = batches
        self._passes = passes
        self._every = evaluate_every
        self._seed = seed
        self._workers = workers
        self._size = max(1, min(MOST_BATCHES, sum(b.train for b in batches) // (workers * WORKLOADS_PER_WORKER)))
        self._queues: dict[int, deque[int]] = {}  # of the newest stage: the batches left, by data server
        self._given: dict[int, Workload] = {}
        self._out = 0  # train batches handed out and not done
        self._numbers = 0
        self._left: dict[tuple[int, bool], int] = {}  # batches not done, by epoch and whether they are trained on
        self._done: dict[int, list[np.ndarray[Any, np.dtype[np.bool_]]]] = {}
        self._evaluated: set[int] = set()
        if progress is not None:
            self._resume(progress)
        self._fill()

    def _resume(self, progress: dict[str, Any]) -> None:
        self.epoch = int(progress["epochs"])
        if progress["batches"] == [[b.train, b.test] for b in self._batches] and progress["seed"] == self._seed:
            for epoch, parts in progress["done"].items():
                bits = [np.unpackbits(np.frombuffer(bytes.fromhex(part), np.uint8)) for part in parts]
                self._done[int(epoch)] = [
                    part[: b.train].astype(np.bool_) for part, b in zip(bits, self._batches, strict=True)
                ]

    @property
    def finished_epochs(self) -> int:
        """Epochs of which every workload is done."""
        return min((epoch for epoch, train in self._left if train), default=self.epoch + 1) - 1

    def progress(self) -> dict[str, Any]:
        """What is done, as JSON has it: whole epochs; of those begun a bit for every batch, by data server, in hex."""
        return {
            "epochs": self.finished_epochs,
            "done": {
                str(epoch): [np.packbits(part).tobytes().hex() for part in parts] for epoch, parts in self._done.items()
            },
            "seed": self._seed,
            "batches": [[b.train, b.test] for b in self._batches],
        }

    # --- handing out ------------------------------------------------------------------------------------------------

    def next(self) -> Workload | None:
        """The next workload, or None while there is none to give."""
        if not self._queues:
            self._fill()
        if not self._queues:
            return None
        train = not self.evaluating
        most = self._most() if train else self._size
        if most < 1:
            return None
        data_server = max(self._queues, key=lambda rank: (len(self._queues[rank]), -rank))
        queue = self._queues[data_server]
        batches = [queue.popleft() for _ in range(min(most, len(queue)))]
        if not queue:
            del self._queues[data_server]
        self._numbers += 1
        workload = Workload(self._numbers, self.epoch, train, data_server, batches)
        self._given[workload.number] = workload
        if train:
            self._out += len(batches)
        return workload

    @property
    def has_rows_left(self) -> bool:
        """Whether there are batches to train on that can be handed out."""
        return bool(self._queues) and not self.evaluating

    def _most(self) -> int:
        """How many batches a workload may have now: with a bound on the delay about two for each worker are out."""
        if self.delay is None:
            return self._size
        share = max(1, (self.delay + 1) // (2 * self._workers))
        return min(self._size, share, self.delay + 1 - self._out)

    @property
    def over(self) -> bool:
        """Whether every workload of the job is done."""
        return self.epoch >= self._passes and not self._left and not self._evaluation_due(self.epoch)

    def done(self, number: int) -> Workload | None:
        """Cross a finished workload off; None when it was crossed off before."""
        workload = self._given.pop(number, None)
        if workload is None:
            return None
        stage = (workload.epoch, workload.train)
        self._left[stage] -= len(workload.batches)
        if workload.train:
            self._out -= len(workload.batches)
            self._done[workload.epoch][self._position(workload.data_server)][workload.batches] = True
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
        while not self._queues and not self.evaluating:
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
        if train and epoch not in self._done:
            self._done[epoch] = [np.zeros(b.train, np.bool_) for b in self._batches]
        for position, batches in enumerate(self._batches):
            if train:
                numbers = order.permutation(batches.train)
                numbers = numbers[~self._done[epoch][position][numbers]]
            else:
                numbers = batches.train + np.arange(batches.test)
            if numbers.size:
                self._queues[batches.data_server] = deque(numbers.tolist())
        left = sum(len(queue) for queue in self._queues.values())
        if left:
            self._left[epoch, train] = left
        elif not train:
            self.evaluating = False


class Rounds:
    """Workloads of a group that evaluates the live model: all test batches, over and over; what `Ledger` has, in short.

    Parameters
    ----------
    batches : what each data server has.
    """

    def __init__(self, batches: list[Batches]) -> None:
        self.round = 0
        self._all = [
            (b.data_server, list(range(b.train + i, b.train + min(i + MOST_BATCHES, b.test))))
            for b in batches
            for i in range(0, b.test, MOST_BATCHES)
        ]
        self._queue: deque[tuple[int, list[int]]] = deque()
        self._given: dict[int, Workload] = {}
        self._numbers = 0

    def next(self) -> Workload | None:
        """The next workload, or None while the last of a round are under way."""
        if not self._queue:
            if self._given or not self._all:
                return None
            self.round += 1
            self._queue.extend(self._all)
        self._numbers += 1
        workload = Workload(self._numbers, self.round, False, *self._queue.popleft())
        self._given[workload.number] = workload
        return workload

    def done(self, number: int) -> Workload | None:
        """Cross a finished workload off; None when it was crossed off before."""
        return self._given.pop(number, None)

    def stage_is_done(self, workload: Workload) -> bool:
        """Whether the round is over."""
        return not self._given and not self._queue
