"""The ledger of workloads: which batches are to be handed out, which are done, when an epoch ends. Pure."""

from collections import deque
from math import ceil
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mpips.messages import Workload
from mpips.scheduler.outstanding import Late, Outstanding

MOST_BATCHES = 64

Bits = np.ndarray[Any, np.dtype[np.bool_]]


class Batches(msgspec.Struct, frozen=True):
    """What a part of the data has: batches 0..train-1 to train on, then `test` batches to evaluate."""

    part: int
    train: int
    test: int


class Done(NamedTuple):
    """A workload that is done.

    Parameters
    ----------
    others : workers that are at it for nothing now.
    ends : whether that was the last that its epoch, or evaluation, had waited for.
    """

    workload: Workload
    others: list[int]
    ends: bool


class Ledger:
    """Workloads of a job: an epoch's train batches in a seeded order, and now and then an evaluation of all test
    batches.

    An epoch's workloads are handed out while the last of the epoch before are under way, but none of earlier ones: a
    slow worker is an epoch behind at most. An evaluation waits for every push, and holds the next epoch back until it
    is over.

    Parameters
    ----------
    batches : what each part of the data has, in order.
    passes : epochs.
    evaluate_every : epochs from one evaluation to the next; 0: only after the last.
    seed : of the order of batches.
    workers : how many there are. It may be changed at any time.
    delay : train batches that may be unfinished when another is handed out (the bounded delay of Li et al. 2014,
        section 3.5, with a batch as the task); None: any number. It may be changed at any time.
    share : of an epoch's batches; when they are done it is over, and what is left of it is not waited for (Chilimbi et
        al. 2014, section 2.2).
    workloads : that each of them gets in an epoch, about; more and smaller ones if `delay` asks for it.
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
        share: float = 1.0,
        progress: dict[str, Any] | None = None,
        workloads: int = 8,
    ) -> None:
        self.delay = delay
        self.workers = workers
        self.epoch = 0
        self.evaluating = False
        self._batches = batches
        self._passes = passes
        self._every = evaluate_every
        self._seed = seed
        train = sum(b.train for b in batches)
        self._size = max(1, min(MOST_BATCHES, train // (workers * workloads)))
        self._spared = train - ceil(share * train)  # batches of an epoch that need not be done
        self._queues: dict[int, deque[int]] = {}  # of the newest stage: the batches left, by part
        self._outstanding = Outstanding()
        self._out = 0  # train batches handed out and not done, of epochs that are not over
        self._left: dict[tuple[int, bool], int] = {}  # batches waited for, by epoch and whether they are trained on
        self._done: dict[int, list[Bits]] = {}
        self._evaluated: set[int] = set()
        if progress is not None:
            self._resume(progress)
        self._fill()

    def _resume(self, progress: dict[str, Any]) -> None:
        self.epoch = int(progress["epochs"])
        if (evaluated := int(progress.get("evaluated", 0))) < self._passes:  # else whoever goes on wants its figures
            self._evaluated = {evaluated}
        if progress["batches"] == [[b.train, b.test] for b in self._batches] and progress["seed"] == self._seed:
            for epoch, parts in progress["done"].items():
                bits = [np.unpackbits(np.frombuffer(bytes.fromhex(part), np.uint8)) for part in parts]
                self._done[int(epoch)] = [
                    part[: b.train].astype(np.bool_) for part, b in zip(bits, self._batches, strict=True)
                ]

    @property
    def finished_epochs(self) -> int:
        """Epochs that are over."""
        return self._finished(self._left)

    def _finished(self, left: dict[tuple[int, bool], int]) -> int:
        return (
            min((epoch for (epoch, train), batches in left.items() if train and batches > 0), default=self.epoch + 1)
            - 1
        )

    def progress(self) -> dict[str, Any]:
        """What is done, as JSON has it: whole epochs; the last that is evaluated; of those begun a bit for every batch,
        by part, in hex.
        """
        return self._progress(self._left, self._done)

    def cut(self, cut: int) -> tuple[dict[str, Any], set[int]]:
        """What is handed out from now on comes after this cut: the progress once all is done that comes before, and the
        numbers of the workloads that are still missing to that.
        """
        self._outstanding.cut = cut
        missing = self._outstanding.to_train_on()
        left, done = dict(self._left), {epoch: [part.copy() for part in parts] for epoch, parts in self._done.items()}
        for workload in missing:
            if (workload.epoch, True) in left:
                left[workload.epoch, True] -= len(workload.batches)
                done[workload.epoch][workload.part][workload.batches] = True
        return self._progress(left, done), {workload.number for workload in missing}

    def is_open(self, number: int) -> bool:
        """Whether a workload is not done, and somebody may do it."""
        return self._outstanding.is_open(number)

    def _progress(self, left: dict[tuple[int, bool], int], done: dict[int, list[Bits]]) -> dict[str, Any]:
        epochs = self._finished(left)
        return {
            "epochs": epochs,
            "evaluated": max(self._evaluated - ({self.epoch} if self.evaluating else set()), default=0),
            "done": {
                str(epoch): [np.packbits(part).tobytes().hex() for part in parts]
                for epoch, parts in done.items()
                if epoch > epochs
            },
            "seed": self._seed,
            "batches": [[b.train, b.test] for b in self._batches],
        }

    # --- handing out ------------------------------------------------------------------------------------------------

    def next(self, worker: int, now: float, identity: int | None = None) -> Workload | None:
        """The next workload for a worker, or None while there is none to give; what a lost worker had comes first. It
        counts as this identity's, or without one as the worker's own.
        """
        identity = worker if identity is None else identity
        return self._outstanding.again(worker, now) or self._fresh(worker, identity, now)

    def _fresh(self, worker: int, identity: int, now: float) -> Workload | None:
        if not self._queues:
            self._fill()
        if not self._queues:
            return None
        train = not self.evaluating
        most = self._most() if train else self._size
        if most < 1:
            return None
        part = max(self._queues, key=lambda part: (len(self._queues[part]), -part))
        queue = self._queues[part]
        batches = [queue.popleft() for _ in range(min(most, len(queue)))]
        if not queue:
            del self._queues[part]
        begun = 0.0
        if train:
            self._out += len(batches)
            left = len(batches) + sum(len(queue) for queue in self._queues.values())
            begun = 1.0 - left / sum(b.train for b in self._batches)
        return self._outstanding.give(worker, identity, self.epoch, train, part, batches, now, begun)

    def late(self, worker: int, now: float) -> Late | None:
        """What runs late, handed out a second time to a worker for which there is nothing else."""
        return self._outstanding.late(worker, now)

    def late_at(self, now: float) -> float | None:
        """When the next workload will run late that does not now."""
        return self._outstanding.late_at(now)

    @property
    def has_rows_left(self) -> bool:
        """Whether there are batches to train on that can be handed out."""
        return bool(self._queues) and not self.evaluating

    def _most(self) -> int:
        """How many batches a workload may have now: with a bound on the delay about two for each worker are out."""
        if self.delay is None:
            return self._size
        share = max(1, (self.delay + 1) // (2 * max(1, self.workers)))
        return min(self._size, share, self.delay + 1 - self._out)

    @property
    def over(self) -> bool:
        """Whether there is nothing in the job that anyone need do, or do again."""
        return self.epoch >= self._passes and not self._left and not self._evaluation_due(self.epoch)

    @property
    def under_way(self) -> bool:
        """Whether a worker has any workload."""
        return bool(self._outstanding)

    # --- done -------------------------------------------------------------------------------------------------------

    def done(self, worker: int, number: int, now: float) -> Done | None:
        """Cross off a workload that a worker has finished; None when it was crossed off before."""
        found = self._outstanding.done(worker, number, now)
        return self._count(*found) if found is not None else None

    def _count(self, workload: Workload, others: list[int]) -> Done:
        stage = (workload.epoch, workload.train)
        if stage not in self._left:
            return Done(workload, others, False)
        self._left[stage] -= len(workload.batches)
        if workload.train:
            self._out -= len(workload.batches)
            self._done[workload.epoch][workload.part][workload.batches] = True
        ends = self._left[stage] <= 0
        if ends:
            self._end(*stage)
        return Done(workload, others, ends)

    def _end(self, epoch: int, train: bool) -> None:
        """A stage is over; of its batches those that are spared may be anywhere."""
        del self._left[epoch, train]
        abandoned = self._outstanding.close(epoch, train)
        if train:
            self._out -= abandoned
            if epoch == self.epoch and not self.evaluating:
                self._queues.clear()
        else:
            self.evaluating = False
        self._done = {epoch: done for epoch, done in self._done.items() if epoch > self.finished_epochs}

    def lost(self, worker: int, now: float, again: bool = True) -> list[Done]:
        """A worker is gone: what it had will be handed out again; or, of an epoch, counts as done."""
        left = self._outstanding.lost(worker)
        return [] if again else [done for each in left if each.train and (done := self.done(worker, each.number, now))]

    def owed(self, worker: int) -> tuple[int, int]:
        """Of the workloads that a worker has left: how many nobody has taken on, and how many are not done."""
        return self._outstanding.owed(worker)

    # --- stages -----------------------------------------------------------------------------------------------------

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
            elif self.epoch < self._passes and self.finished_epochs >= self.epoch - 1:
                self.epoch += 1
                self._add(self.epoch, True)
            else:
                return

    def _add(self, epoch: int, train: bool) -> None:
        order = np.random.default_rng([self._seed, epoch])
        if train and epoch not in self._done:
            self._done[epoch] = [np.zeros(b.train, np.bool_) for b in self._batches]
        for batches in self._batches:
            if train:
                numbers = order.permutation(batches.train)
                numbers = numbers[~self._done[epoch][batches.part][numbers]]
            else:
                numbers = batches.train + np.arange(batches.test)
            if numbers.size:
                self._queues[batches.part] = deque(numbers.tolist())
        left = sum(len(queue) for queue in self._queues.values()) - (self._spared if train else 0)
        if left > 0:
            self._left[epoch, train] = left
        else:
            self._queues.clear()
            if not train:
                self.evaluating = False


class Rounds:
    """Workloads of a group that evaluates the live model: all test batches, over and over; what `Ledger` has, in short.

    Parameters
    ----------
    batches : what each part of the data has, in order.
    """

    def __init__(self, batches: list[Batches]) -> None:
        self.round = 0
        self._all = [
            (b.part, list(range(b.train + i, b.train + min(i + MOST_BATCHES, b.test))))
            for b in batches
            for i in range(0, b.test, MOST_BATCHES)
        ]
        self._queue: deque[tuple[int, list[int]]] = deque()
        self._outstanding = Outstanding()
        self._left = 0  # workloads of the round that are not done

    def next(self, worker: int, now: float) -> Workload | None:
        """The next workload for a worker, or None while the last of a round are under way."""
        again = self._outstanding.again(worker, now)
        if again is not None:
            return again
        if not self._queue:
            if self._left or not self._all:
                return None
            self.round += 1
            self._queue.extend(self._all)
            self._left = len(self._all)
        return self._outstanding.give(worker, worker, self.round, False, *self._queue.popleft(), now)

    def late(self, worker: int, now: float) -> Late | None:
        """As `Ledger.late`."""
        return self._outstanding.late(worker, now)

    def late_at(self, now: float) -> float | None:
        """As `Ledger.late_at`."""
        return self._outstanding.late_at(now)

    def done(self, worker: int, number: int, now: float) -> Done | None:
        """As `Ledger.done`."""
        found = self._outstanding.done(worker, number, now)
        if found is None:
            return None
        self._left -= 1
        return Done(*found, self._left == 0)

    def lost(self, worker: int) -> None:
        """A worker is gone: what it had will be handed out again."""
        self._outstanding.lost(worker)

    def owed(self, worker: int) -> tuple[int, int]:
        """As `Ledger.owed`."""
        return self._outstanding.owed(worker)
