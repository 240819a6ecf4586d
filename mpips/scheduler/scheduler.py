"""The scheduler's decisions, as a state machine: messages and the time come in, effects go out.

It brings the job up (data read, tables made, workers begun), hands out workloads, has servers write checkpoints, and
ends the job: when the work is done, when someone asks, or when something is wrong. It does no I/O; `effects` says
what to do.
"""

from typing import Any, NamedTuple

from mpips import messages as m
from mpips.metrics import Evaluation
from mpips.plan import Plan
from mpips.scheduler.delays import Delays
from mpips.scheduler.ledger import Batches, Ledger, Rounds
from mpips.scheduler.saving import Next, Saving
from mpips.scheduler.sums import Sums
from mpips.scheduler.tally import Tally
from mpips.scheduler.view import MAIN, View
from mpips.table import TableSpec

DRAIN_SECONDS = 5.0
OF_A_PASS = ("pass", "active")  # figures that say nothing of the result


class Send(NamedTuple):
    """Send a message."""

    dest: int
    message: m.Message


class Log(NamedTuple):
    """Write an event to the log of the run."""

    event: dict[str, Any]


class Complete(NamedTuple):
    """Every server has written its part: complete the generation, and call `Scheduler.completed`."""

    generation: int
    tables: list[TableSpec]
    progress: dict[str, Any]


class End(NamedTuple):
    """The job is over: "finished", "failed" or "interrupted"."""

    exit: str
    reason: str


class Resume(NamedTuple):
    """A generation to go on from."""

    path: str
    progress: dict[str, Any]


Effect = Send | Log | Complete | End


class Scheduler:
    """The state of one job.

    Parameters
    ----------
    view : who does what.
    plan : what the job is.
    resume : generations to go on from, the best first; empty to start afresh.
    generation : number of the first generation to write.
    """

    def __init__(self, view: View, plan: Plan, resume: list[Resume], generation: int) -> None:
        self.effects: list[Effect] = []
        self.results: dict[int, Any] = {}
        self.metrics: dict[str, float] = {}
        self.hellos: dict[int, m.Hello] = {}
        self.tally = Tally()
        self._delays = Delays(plan, len(view.groups[MAIN]))
        self._view = view
        self._plan = plan
        self._resume = resume
        self._data: dict[int, m.DataReady] = {}
        self._tables: list[TableSpec] = []
        self._awaited: set[int] = set()
        self._restore_errors: list[str] = []
        self._created = False
        self._lost_spares: set[int] = set()
        self._ledger: Ledger | None = None
        self._passes = 0  # of a solver that keeps its rows
        self._rounds: dict[str, Rounds] = {}
        self._hungry: list[int] = []
        self._dealt = 0  # workloads of rows that workers keep
        self._have_rows: set[int] = set()  # workers that have all theirs
        self._places = {worker: place for place, worker in enumerate(view.groups[MAIN])}
        self._sums = Sums(view.groups)
        self._conducted = plan.conduct is None
        self.began = False
        self._evaluations: dict[str, Evaluation] = {}
        self._measuring: tuple[int, Evaluation, set[int], dict[str, int]] | None = None
        self._saving = Saving(view.servers, plan.save_every, generation)
        self._save_progress: dict[str, Any] = {}
        self._ending: End | None = None
        self._drained_by: float | None = None
        self._over = False
        self._handlers: dict[type[m.Message], Any] = {
            m.Hello: self._hello,
            m.DataReady: self._data_ready,
            m.TablesReady: self._tables_ready,
            m.WorkRequest: self._work_request,
            m.WorkDone: self._work_done,
            m.Sum: self._sum,
            m.Report: self._figures,
            m.Finished: self._finished,
            m.Load: self._load,
            m.Measured: self._measured,
            m.Saved: self._saved,
            m.Note: self._note,
            m.Failed: self._failed,
        }

    def kinds(self) -> list[type[m.Message]]:
        """The message types that `handle` takes."""
        return list(self._handlers)

    def handle(self, source: int, message: m.Message, now: float) -> None:
        """Take a message in."""
        if not self._over:
            self._handlers[type(message)](source, message, now)

    def tick(self, now: float) -> None:
        """Take notice of the time."""
        if self._over:
            return
        if self.began and self._ending is None and self.tally.due(now):
            self._report(now)
        if self._drained_by is not None and now >= self._drained_by:
            self._save_last(now)
        if self._saving.due(now):
            self._save(now)
        elif self._saving.overdue(now):
            missing = ", ".join(str(rank) for rank in sorted(self._saving.missing or ()))
            self._end(f"the last checkpoint was not written: no answer from server {missing}")

    def lost(self, rank: int, now: float) -> None:
        """Take notice of a rank's death."""
        role = self._view.role(rank)
        host = self.hellos[rank].host if rank in self.hellos else "?"
        if self._over:
            return
        self._log("lost", rank=rank, role=role)
        if role == "spare":
            self._lost_spares.add(rank)
            self._create(now)
            return
        self._stop(End("failed", f"rank {rank} ({role} on {host}) died"), now, save=role != "server")

    def interrupt(self, reason: str, now: float) -> None:
        """Someone wants the job to end: with a checkpoint."""
        self._stop(End("interrupted", reason), now)

    def fail(self, reason: str, now: float) -> None:
        """Something is wrong here: end the job, with a checkpoint if there is anything to save."""
        self._stop(End("failed", reason), now)

    # --- up ---------------------------------------------------------------------------------------------------------

    def _hello(self, source: int, message: m.Hello, now: float) -> None:
        self.hellos[source] = message
        self._create(now)

    def _data_ready(self, source: int, message: m.DataReady, now: float) -> None:
        self._data[source] = message
        self.tally.rows += message.train_rows
        skipped = f", {message.skipped} malformed lines skipped" if message.skipped else ""
        rows = f"{message.train_rows:,} training and {message.test_rows:,} test rows"
        self._log("note", text=f"data server {source}: {rows}, {message.features:,} features{skipped}")
        self._create(now)

    def _create(self, now: float) -> None:
        expected = set(self._view.data_servers) if self._plan.data is not None else set()
        present = self._lost_spares.union(self.hellos)
        if self._created or len(present) < len(self._view.nodes) or set(self._data) != expected or self._ending:
            return
        if self._data and not sum(data.train for data in self._data.values()):
            self.fail("the data have no training row", now)
            return
        features = max((data.features for data in self._data.values()), default=0)
        self._created = True
        self._tables = self._plan.tables(features)
        self._ask_servers(now)

    def _ask_servers(self, now: float) -> None:
        restore = self._resume[0].path if self._resume else None
        self._awaited = set(self._view.servers)
        for server in self._view.servers:
            self._send(server, m.CreateTables(self._tables, restore))

    def _tables_ready(self, source: int, message: m.TablesReady, now: float) -> None:
        self._awaited.discard(source)
        if message.error is not None:
            self._restore_errors.append(message.error)
        if self._awaited or self._ending:
            return
        if self._restore_errors:
            error, self._restore_errors = self._restore_errors[0], []
            if len(self._resume) > 1:
                self._resume = self._resume[1:]
                self._log("note", text=f"{error}; going back to {self._resume[0].path}")
                self._ask_servers(now)
            else:
                self._stop(End("failed", error), now, save=False)
            return
        if self._plan.data is not None:
            batches = [Batches(rank, data.train, data.test) for rank, data in sorted(self._data.items())]
            self._ledger = Ledger(
                batches,
                1 if self._plan.keeps_rows else self._plan.passes,
                self._plan.evaluate_every,
                self._plan.seed,
                len(self._view.groups[MAIN]),
                None if self._plan.keeps_rows else self._delays.delay,
                self._resume[0].progress if self._resume and not self._plan.keeps_rows else None,
            )
            self._rounds = {name: Rounds(batches) for name in self._view.groups if name != MAIN}
        if self._resume:
            self._log("note", text=f"resumed from {self._resume[0].path}")
        self.began = True
        self.tally.begin(now)
        self._delays.begin(now)
        if self._plan.saves:
            self._saving.begin_periods(now)
        self._log("training")
        groups = next((data.groups for _, data in sorted(self._data.items())), [])
        for worker in self._view.workers:
            self._send(worker, m.Begin(self._tables, groups))

    # --- work -------------------------------------------------------------------------------------------------------

    def _work_request(self, source: int, message: m.WorkRequest, now: float) -> None:
        self._hungry.append(source)
        self._feed(now)

    def _feed(self, now: float) -> None:
        if self._ledger is None or self._ending is not None:
            return
        still_hungry: list[int] = []
        for worker in sorted(self._hungry, key=self._turns) if self._plan.keeps_rows else self._hungry:
            answer = self._work_for(worker)
            if answer is not None:
                self._send(worker, answer)
            else:
                still_hungry.append(worker)
        self._hungry = still_hungry

    def _turns(self, worker: int) -> int:
        """How many workers of the main group have their turn before this one."""
        return (self._places.get(worker, self._dealt) - self._dealt) % len(self._places)

    def _work_for(self, worker: int) -> m.Workload | m.NoMoreWork | None:
        """What a worker that asks for work gets now, if anything.

        Rows that workers keep are dealt out in turn, so that each has the same in every run, however long messages
        take. No more work, said once, ends the rows; said again, the evaluation.
        """
        assert self._ledger is not None
        if worker not in self._places:
            return self._rounds[self._view.group_of(worker)].next()
        if self._plan.keeps_rows and worker not in self._have_rows:
            if not self._ledger.has_rows_left:
                self._have_rows.add(worker)
                return m.NoMoreWork()
            if self._turns(worker):
                return None
            self._dealt += 1
        return self._ledger.next() or (m.NoMoreWork() if self._ledger.over else None)

    def _work_done(self, source: int, message: m.WorkDone, now: float) -> None:
        if self._ledger is None:
            return
        group = self._view.group_of(source)
        if group != MAIN:
            self._round_done(group, message, now)
            return
        workload = self._ledger.done(message.number)
        if workload is None:
            return
        if workload.train and not self._plan.keeps_rows:
            self.tally.add(workload.epoch, message.rows, message.loss, now)
            self._ledger.delay = self._delays.done(
                len(workload.batches), message.rows, message.loss, message.waited, now
            )
            if self._ledger.stage_is_done(workload):
                loss = self.tally.end_epoch(workload.epoch)
                self._log("epoch", epoch=workload.epoch, loss=loss, examples=self.tally.examples)
        elif not workload.train:
            self._evaluate(MAIN, message)
            if self._ledger.stage_is_done(workload):
                self._delays.begin(now)
                self._measuring = (workload.epoch, self._evaluations.pop(MAIN), set(self._view.servers), {})
                for server in self._view.servers:
                    self._send(server, m.Measure(workload.epoch))
        if self._drained_by is not None and not self._ledger.under_way:
            self._save_last(now)
        self._feed(now)

    def _evaluate(self, group: str, message: m.WorkDone) -> None:
        self._evaluations.setdefault(group, Evaluation()).add(message.rows, message.loss, message.histogram)

    def _round_done(self, group: str, message: m.WorkDone, now: float) -> None:
        """A group that watches the live model has evaluated some batches."""
        workload = self._rounds[group].done(message.number)
        if workload is None:
            return
        self._evaluate(group, message)
        if self._rounds[group].stage_is_done(workload):
            found = self._evaluations.pop(group)
            figures = {"rows": found.rows, "auc": found.auc, "logloss": found.logloss}
            self._log("live evaluation", group=group, round=workload.epoch, **figures)
        self._feed(now)

    def _sum(self, source: int, message: m.Sum, now: float) -> None:
        for worker, reply in self._sums.add(self._view.group_of(source), source, message):
            self._send(worker, reply)

    def _figures(self, source: int, message: m.Report, now: float) -> None:
        """A program says how far it has come; a batch solver counts its passes."""
        self.metrics.update((name, figure) for name, figure in message.figures.items() if name not in OF_A_PASS)
        if "pass" in message.figures:
            self._passes = int(message.figures["pass"])
            self.tally.passed(self._passes, now)
        if "objective" in message.figures and self._delays.reported(message.figures["objective"], message.idle):
            for worker in self._view.groups[MAIN]:
                self._send(worker, m.SetDelay(self._delays.delay))
        self._log("report", **message.figures)

    def _measured(self, source: int, message: m.Measured, now: float) -> None:
        if self._measuring is None or self._measuring[0] != message.epoch:
            return
        epoch, evaluation, missing, nonzeros = self._measuring
        missing.discard(source)
        self.tally.traffic[source] = message.traffic
        for table, count in message.nonzeros.items():
            nonzeros[table] = nonzeros.get(table, 0) + count
        if not missing:
            self._measuring = None
            count = nonzeros.get(self._plan.model or "", 0)
            figures = {"auc": evaluation.auc, "logloss": evaluation.logloss, "nonzeros": count}
            self.metrics.update(figures)
            self._log("evaluation", epoch=epoch, rows=evaluation.rows, **figures)
            self._conclude(now)

    def _finished(self, source: int, message: m.Finished, now: float) -> None:
        self.tally.traffic[source] = message.traffic
        if source in self._view.groups[MAIN]:
            self.tally.idle[source] = message.idle
            self.results[source] = message.result
        self._conclude(now)

    def conducted(self, now: float) -> None:
        """Take notice that the scheduler's own program has returned."""
        self._conducted = True
        self._conclude(now)

    def _conclude(self, now: float) -> None:
        finished = len(self.results) == len(self._view.groups[MAIN])
        if finished and self._measuring is None and self._conducted:
            self._stop(End("finished", "all work is done"), now)

    def _load(self, source: int, message: m.Load, now: float) -> None:
        self.tally.hear(source, message)

    def _note(self, source: int, message: m.Note, now: float) -> None:
        self._log("note", text=f"rank {source}: {message.text}")

    def _failed(self, source: int, message: m.Failed, now: float) -> None:
        self._log("failed", rank=source, reason=message.reason)
        self._stop(End("failed", message.reason), now)

    def _report(self, now: float) -> None:
        finished = self._ledger.finished_epochs if self._ledger is not None else 0
        epoch = min((self._passes if self._plan.keeps_rows else finished) + 1, self._plan.passes)
        workers = self._view.groups[MAIN]
        fields = self.tally.report(epoch, self._plan.passes, self._view.servers, workers, now)
        self._log("progress", delay=self._delays.delay, **fields)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _save(self, now: float) -> None:
        self._save_progress = {
            **(self._ledger.progress() if self._ledger is not None else {}),
            "examples": self.tally.examples,
        }
        generation = self._saving.begin(now)
        for server in self._view.servers:
            self._send(server, m.Checkpoint(generation))

    def _saved(self, source: int, message: m.Saved, now: float) -> None:
        if not self._saving.written(source, message.generation, message.error):
            return
        if self._saving.error is not None:
            self.completed(self._saving.error, now)
        else:
            self.effects.append(Complete(self._saving.generation, self._tables, self._save_progress))

    def completed(self, error: str | None, now: float) -> None:
        """Take notice that the generation is complete, or why it is not."""
        if self._over:
            return
        generation, seconds = self._saving.generation, now - self._saving.started
        follows = self._saving.end(error, now)
        if error is None:
            self._log("checkpoint", generation=generation, seconds=seconds)
        else:
            self._log("checkpoint failed", generation=generation, error=error)
        if follows is Next.AGAIN:
            self._save(now)
        elif follows is Next.OVER:
            self._end()
        elif follows is Next.LOST:
            self._end(f"the last checkpoint was not written: {error}")

    # --- down -------------------------------------------------------------------------------------------------------

    def _stop(self, end: End, now: float, save: bool = True) -> None:
        """Begin the end: a last checkpoint where there is something to save, then the farewell."""
        if self._ending is not None:
            if not save:  # a server died while the last checkpoint was being written
                self._ending = end
                self._end()
            return
        self._ending = end
        self._log("stopping", exit=end.exit, reason=end.reason)
        if not (save and self._plan.saves and self.began):
            self._end()
        elif end.exit == "interrupted" and self._ledger is not None and self._ledger.under_way:
            self._drained_by = now + DRAIN_SECONDS  # what is under way would be run again after a restart
        else:
            self._save_last(now)

    def _save_last(self, now: float) -> None:
        self._drained_by = None
        if self._saving.begin_last():
            self._save(now)

    def _end(self, problem: str | None = None) -> None:
        assert self._ending is not None
        end = self._ending
        if problem is not None:
            end = End("failed", problem if end.exit == "finished" else f"{end.reason}; {problem}")
        self._over = True
        self.effects.append(Log({"event": "end", "exit": end.exit, "reason": end.reason}))
        for rank in range(len(self._view.nodes)):
            self._send(rank, m.Stop(end.exit, end.reason))
        self.effects.append(end)

    def _send(self, dest: int, message: m.Message) -> None:
        self.effects.append(Send(dest, message))

    def _log(self, event: str, **fields: Any) -> None:
        self.effects.append(Log({"event": event, **fields}))
