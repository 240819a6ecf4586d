"""The worker's role: the tables, and a loop that feeds an algorithm with batches and reports what came of them."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

import numpy as np

from mpips.dataserver.batch import EMPTY, Batch, batch_of
from mpips.dataserver.image_batch import ImageBatch
from mpips.dataserver.rows import concatenate
from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.fabric.meter import Meter
from mpips.line import SCHEDULER, Line
from mpips.messages import (
    Begin,
    Cancelled,
    Crossed,
    Cut,
    Finished,
    Load,
    NoMoreWork,
    Report,
    Resumed,
    SetDelay,
    Sum,
    SumReply,
    Traffic,
    WorkDone,
    Workload,
)
from mpips.metrics import SCORES, pack
from mpips.table import header_offsets
from mpips.tasks import Issued, Task, TaskRefused
from mpips.tasks.calls import call
from mpips.views.view import View
from mpips.worker.batches import Batches
from mpips.worker.exchanges import Exchanges
from mpips.worker.forgotten import Forgotten
from mpips.worker.keys import KeyRangeError
from mpips.worker.pushes import NonFiniteError
from mpips.worker.table import Table
from mpips.worker.team import Regrouped, Team

T = TypeVar("T")

TO_WORKERS = (
    Begin,
    SetDelay,
    Cut,
    Workload,
    Cancelled,
    NoMoreWork,
)  # not for who will be one again


class TrainingError(Error, RuntimeError):
    """An algorithm failed on a batch; the text says which."""


class Leaves(Error, RuntimeError):
    """The job needs this worker no longer: its program ends here."""


class Algorithm(Protocol):
    """What `Worker.train` runs: mathematics, and the order of pushes and pulls.

    Attributes
    ----------
    counts : shape of what an evaluation counts; if it does not say, that of scores.
    """

    def train(self, batch: Any) -> float:
        """Learn from a `Batch` or `ImageBatch`; the loss summed over its rows, before they were learned from."""

    def evaluate(self, batch: Any, counts: np.ndarray[Any, np.dtype[np.uint32]]) -> float:
        """The loss summed over a batch's rows, what is found counted in `counts`, by label; see `mpips.metrics`."""


class Worker:
    """A worker of a job, handed to the job's program.

    Attributes
    ----------
    rank : its rank.
    group : the name of its group of workers.
    index, count : its number in the group, and how many the group had when this worker began.
    tables : the job's tables by name.
    feature_groups : the key range of each field of the data, when their keys are from a dictionary.
    threads : cores of its node that there are for this worker.
    team : those that it has a copy of the model together with.
    doing : while an algorithm has a batch: the workload that it belongs to, and its number in its part of the data.
    on_begin : called when the tables are there.
    left : whether the job needs this worker no longer.
    """

    def __init__(
        self,
        fabric: Fabric,
        view: View,
        line: Line,
        issued: Issued,
        exchanges: Exchanges,
        delay: int | None,
        threads: int = 1,
    ) -> None:
        self.rank = fabric.rank
        self.threads = threads
        self.doing: tuple[Workload, int]
        self.group = view.group_of(fabric.rank)
        self.index = view.groups[self.group].index(fabric.rank)
        self.count = len(view.groups[self.group])
        self.tables: dict[str, Table] = {}
        self.feature_groups: list[tuple[int, int]] = []
        self.left = False
        self._fabric = fabric
        self._view = view
        self._line = line
        self._delay = delay
        self._issued = issued
        team = view.team_of(fabric.rank)
        self.team = Team(exchanges, team, fabric.rank, view.era_of(team))
        self._batches = Batches(fabric, view, line, self.team.leads)
        self._begun = False
        self._resumed = view.number  # the last view of which this worker has told that it goes on
        self.on_begin: Callable[[], None] | None = None
        self._cut: int | None = None  # to be crossed
        self._sums = 0
        self._open_sums: set[Task[list[float]]] = set()
        self._meter = Meter(fabric)
        self._between_reports = Meter(fabric)
        fabric.on(Begin, self._begin)
        self._forgotten: Forgotten | None = None
        fabric.on(SetDelay, self._set_delay)
        fabric.on(Cut, self._cut_here)
        fabric.on(Cancelled, self._cancelled)
        fabric.background += [self._report_load, self._cross]

    def _begin(self, source: int, message: Begin) -> None:
        offsets = header_offsets(message.tables)
        self._fabric.space.first(offsets[-1])  # as this rank may come to be a server
        for index, spec in enumerate(message.tables):
            self.tables[spec.name] = Table(
                spec, index, offsets[index], self._view, self._fabric, self._issued, message.identity, self._resume,
                self._delay,
            )  # fmt: skip
            self.tables[spec.name].cross(message.cut)
        self._forgotten = Forgotten(self._fabric, list(self.tables.values()))
        self.feature_groups = [(lo, hi) for lo, hi in message.groups]
        self._begun = True
        self._meter.begin()
        if self.on_begin is not None:
            self.on_begin()

    def _set_delay(self, source: int, message: SetDelay) -> None:
        for table in self.tables.values():
            table.delay = message.delay

    def _cut_here(self, source: int, message: Cut) -> None:
        self._cut = message.generation
        self._cross()

    def _cross(self) -> bool:
        """Begin with what comes after a cut, once the batches are done that come before it."""
        cut = self._cut
        if cut is not None and not self._batches.has_older(cut):
            self._cut = None
            for table in self.tables.values():
                table.cross(cut)
            self._after_pushes(lambda: self._line.tell(Crossed(cut)))
        return False

    def _cancelled(self, source: int, message: Cancelled) -> None:
        """Another worker was faster; its pushes count as this one's would have."""
        workload = self._batches.cancel(message.number)
        if workload is not None and workload.train:
            for table in self.tables.values():
                table.pass_by(workload.identity, workload.first + len(workload.batches) - 1)

    def viewed(self, old: View, new: View) -> None:
        """There is a new view: other ranks may have what this one was dealing with."""
        self._view = new
        for table in self.tables.values():
            table.viewed(new)
        team = new.team_of(self.rank)
        if self.team.viewed(team, new.era_of(team) or new.number) and team:
            self._batches.begin_anew()
        self._batches.viewed(old, new)

    def leave(self) -> None:
        """The job needs this worker no longer: what it has to do goes to others, and its program ends when it asks for
        a batch, or waits for what will not come.
        """
        self.left = True
        self._fabric.off(*TO_WORKERS)
        self._batches.leave()
        for task in list(self._open_sums):
            self._issued.withdraw(task, asked=False)
            task.finish([], self._leaves())

    def _leaves(self) -> Leaves:
        return Leaves(f"the job needs worker {self.rank} no longer")

    def close(self) -> None:
        """The program of a worker that leaves has ended, and all that it has pushed is acknowledged: nothing of it is
        left on this rank.
        """
        self._batches.close()
        for step in (self._report_load, self._cross):
            self._fabric.background.remove(step)
        if self._forgotten is not None:
            self._forgotten.close()

    def _resume(self, view: int) -> None:
        """What had to be sent again for a view goes on: the first of it is told."""
        if view > self._resumed:
            self._resumed = view
            self._line.tell(Resumed(view))

    @property
    def peers(self) -> int:
        """How many workers, or teams, its group has now, this one included."""
        return len(self._view.groups.get(self.group, [])) // self.team.size or 1

    def wait_for_begin(self) -> None:
        """Wait until the tables are there; that takes as long as the data do.

        Raises
        ------
        Leaves
            when the job needs this worker no longer.
        """
        self.idle(lambda: self._begun, "the start of the job")

    def table(self, name: str) -> Table:
        """A table of the job.

        Raises
        ------
        KeyError
            when there is none of this name.
        """
        return self.tables[name]

    def idle(self, until: Callable[[], bool], what: str = "its program", timeout: float | None = None) -> None:
        """Do nothing, but answer, until a condition holds; it is looked at now and then.

        Raises
        ------
        Leaves
            when the job needs this worker no longer.
        """
        self._fabric.wait(lambda: self.left or until(), what, timeout=timeout)
        if self.left:
            raise self._leaves()

    def beside(self, work: Callable[[], T]) -> "Future[T]":
        """Run a function in a thread of its own; it may not use this worker or its tables."""
        return self._fabric.aside(work)

    def wait_beside(self, until: Callable[[], bool], at_work: Callable[[], bool]) -> None:
        """Answer others until a condition holds, which is looked at when something has come, or a thread has ended.

        `at_work` says whether what runs beside is at work, so that this worker is not idle.
        """
        self._fabric.wait(until, "its own threads, or its mates", timeout=None, at_work=at_work)

    def call(self, group: str, function: str, argument: Any = None, after: Iterable[Task[Any]] = ()) -> Task[list[Any]]:
        """Have every rank of a group run a registered function (`mpips.function`); the replies in order of rank.

        Parameters
        ----------
        group : "workers", "servers", "data_servers", "spares", or a worker group's name.
        argument : anything that msgpack can hold.
        after : tasks of this worker that must be finished before.

        Raises
        ------
        KeyError
            when there is no such group.
        """
        return call(self._issued, self._view.group(group), function, argument, after)

    def sum(self, *values: float) -> Task[list[float]]:
        """Add numbers up over the workers of the group: every worker's n-th call belongs to the same sum.

        Returns
        -------
        Task
            whose result is the sums, the same to the bit on every worker.

        Raises
        ------
        Leaves
            when the job needs this worker no longer.
        """
        if self.left:
            raise self._leaves()
        self._sums += 1
        number = self._sums
        task: Task[list[float]] = Task(self._issued, f"sum {number} over the workers of the group {self.group}")

        def send(time: int, after: list[int]) -> None:
            self._line.tell(Sum(time, number, [float(value) for value in values]))

        def replied(source: int, message: SumReply) -> None:
            if self._issued.received(task, source):
                task.finish(message.values)

        self._open_sums.add(task)
        task.on_end(lambda: self._open_sums.discard(task))
        self._issued.issue(task, [SCHEDULER], send, (), replied)
        return task

    def report(self, **figures: float) -> None:
        """Tell the log of the run, and the result, how far the program has come: ``objective=…``, or any other name.

        With ``delay = "auto"`` the scheduler chooses the delay by how fast the objective falls.
        """
        named = {name: float(value) for name, value in figures.items()}
        self._line.tell(Report(named, self._between_reports.idle))
        self._between_reports.begin()

    def finish(self, result: Any) -> None:
        """The program has returned: tell the scheduler."""
        self._line.tell(Finished(result, self._meter.idle, self._traffic()))

    def _report_load(self) -> bool:
        share = self._meter.reading()
        if share is not None and self._begun:
            pushes = sum(table.pushes for table in self.tables.values())
            self._line.tell(Load(share, pushes, self._fabric.space.used, self._traffic()))
        return False

    def _traffic(self) -> Traffic:
        return Traffic.total(table.traffic() for table in self.tables.values())

    def settle(self) -> None:
        """Wait until every push of this worker is acknowledged."""
        for table in self.tables.values():
            table.settle()

    def rows(self) -> Batch:
        """Every training row that the scheduler gives to this worker, as one batch of its own; for a batch solver.

        It is for jobs whose plan says `keeps_rows`; what is left for `train` afterwards is to evaluate.

        Raises
        ------
        DataError
            when they have more features than a batch can count.
        """
        parts = []
        for workload, number, batch in self._batches:
            assert isinstance(batch, Batch)
            parts.append(batch.rows())
            if number == workload.batches[-1]:
                self._line.tell(WorkDone(workload.number, 0, 0.0, b""))
        return batch_of(concatenate(parts)) if parts else EMPTY

    def train(self, algorithm: Algorithm) -> None:
        """Run an algorithm on every workload that the scheduler hands out, until there is none left.

        Raises
        ------
        TrainingError
            when it pushes NaN or infinite values, or a key that the table does not have, or a server refuses.
        """
        rows, loss, waited = 0, 0.0, self._batches.waited
        counts = np.zeros(getattr(algorithm, "counts", SCORES), np.uint32)
        for workload, number, batch in self._batches:
            self.doing = workload, number
            self.team.regrouped = False
            if number == workload.batches[0]:  # the one before may have been left
                rows, loss = 0, 0.0
                counts[:] = 0
            try:
                if workload.train:
                    loss += self._train_one(algorithm, batch, workload, number)
                else:
                    loss += algorithm.evaluate(batch, counts)
            except Regrouped:
                continue
            except (KeyRangeError, NonFiniteError, TaskRefused, ArenaFull) as error:
                place = f"epoch {workload.epoch}, batch {number} of part {workload.part}"
                raise TrainingError(f"worker {self.rank}, {place}: {error}") from error
            rows += len(batch)
            if number == workload.batches[-1]:
                packed = b"" if workload.train else pack(counts)
                self._after_pushes(self._reporter(workload, rows, loss, packed, self._batches.waited - waited))
                waited = self._batches.waited
        self.settle()

    def _train_one(self, algorithm: Algorithm, batch: Batch | ImageBatch, workload: Workload, number: int) -> float:
        """Learn from a batch, under the identity and the counter that it has whoever does it."""
        counter = workload.first + workload.batches.index(number)
        for table in self.tables.values():
            table.begin_batch(workload.identity, counter, workload.cut)
        loss = algorithm.train(batch)
        for table in self.tables.values():
            table.end_batch()
        return loss

    def _reporter(self, workload: Workload, rows: int, loss: float, counts: bytes, waited: float) -> Callable[[], None]:
        message = WorkDone(workload.number, rows, loss, counts, waited)
        return lambda: self._line.tell(message)

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
