"""The scheduler's decisions, as a state machine: messages and the time come in, effects go out.

It brings the job up (data read, tables made, workers begun), hands out workloads, has servers write checkpoints, and
ends the job: when the work is done, when someone asks, or when something is wrong. It does no I/O; `effects` says
what to do.
"""

from typing import Any

from mpips import messages as m
from mpips.plan import Plan
from mpips.scheduler.cut import Cut
from mpips.scheduler.effects import Effect, Effects, End
from mpips.scheduler.ending import Ending
from mpips.scheduler.evaluations import Evaluations
from mpips.scheduler.growth import Growth
from mpips.scheduler.losses import Losses
from mpips.scheduler.membership import BeyondRedundancy, Membership
from mpips.scheduler.saving import Saving
from mpips.scheduler.startup import Resume, StartUp
from mpips.scheduler.sums import Reply, Sums
from mpips.scheduler.tally import Tally
from mpips.scheduler.traces import Traces
from mpips.scheduler.work import Work
from mpips.views.places import Places
from mpips.views.view import MAIN, View

OF_A_PASS = ("pass", "active")  # figures that say nothing of the result
OF_WORKERS = (m.WorkRequest, m.WorkDone, m.Sum, m.Report, m.Crossed, m.Finished)


class Scheduler:
    """The state of one job.

    Parameters
    ----------
    view : who does what.
    plan : what the job is.
    resume : generations to go on from, the best first; empty to start afresh.
    generation : number of the first generation to write.

    Attributes
    ----------
    results : what the main group's programs returned, by identity.
    metrics : the last figures of evaluations and programs.
    tally : what the workers have done.
    began : whether the workers have been told to begin.
    """

    def __init__(self, view: View, plan: Plan, resume: list[Resume], generation: int) -> None:
        self.results: dict[int, Any] = {}
        self.metrics: dict[str, float] = {}
        self.tally = Tally(plan.epoch_share)
        self.began = False
        self._view = view
        self._plan = plan
        self._effects = Effects()
        self._membership = Membership(view, plan)
        self._growth = Growth(plan, self._membership, self._effects, self.tally)
        self._traces = Traces(plan, self._effects)
        self._startup = StartUp(plan, resume, self._effects, self._traces)
        self._places = Places(view)
        self._work = Work(plan, view, self._places, self.tally, self._effects)
        self._losses = Losses(plan, self._work, self.tally, self._effects)
        self._evaluations = Evaluations(plan.model, plan.classes, self._effects)
        self._sums = Sums(self._places, self._membership.may_begin_anew)
        self._passes = 0  # of a solver that keeps its rows
        self._conducted = plan.conduct is None
        cut = self._cut if plan.consistency == "cut" else None
        self._saving = Saving(view.servers, plan.save_every, generation, self._progress, self._effects, cut)
        self._ending = Ending(plan, view, self._work, self._saving, self._effects)
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
            m.Crossed: self._crossed,
            m.Saved: self._saved,
            m.Note: self._note,
            m.ViewTaken: self._view_taken,
            m.Born: self._born,
            m.CopiesWhole: self._copies_whole,
            m.Drained: self._drained,
            m.Resumed: self._resumed,
            m.Failed: self._failed,
        }

    @property
    def view(self) -> View:
        """Who does what."""
        return self._view

    @property
    def effects(self) -> list[Effect]:
        """What is to be done; whoever does it leaves an empty list."""
        return self._effects.wanted

    @effects.setter
    def effects(self, wanted: list[Effect]) -> None:
        self._effects.wanted = wanted

    @property
    def hellos(self) -> dict[int, m.Hello]:
        """Of the ranks that are there."""
        return self._startup.hellos

    def handle(self, source: int, message: m.Message, now: float) -> None:
        """Take a message in; what a worker says that is none any more goes unheard."""
        if not self._ending.over and not (isinstance(message, OF_WORKERS) and self._places.group(source) is None):
            self._handlers[type(message)](source, message, now)
            self._losses.heard(source, message)

    def due(self, now: float) -> bool:
        """Whether `tick` would do anything."""
        if self._ending.over:
            return False
        reports = self.began and not self._ending.begun and self.tally.due(now)
        grows = not self._ending.begun and self._growth.due(now, self._work.finished_epochs + 1)
        return reports or grows or self._saving.due(now) or self._ending.due(now) or self._work.due(now)

    def tick(self, now: float) -> None:
        """Take notice of the time."""
        if self._ending.over:
            return
        if self.began and not self._ending.begun and self.tally.due(now):
            self._report(now)
        if self._work.due(now):
            self._work.feed(now)
        if not self._ending.begun and self._growth.due(now, self._work.finished_epochs + 1):
            self._growth.make_planned(now, self._work.finished_epochs + 1)
            self._change_view(now)
            self._growth.settle()
        if self._ending.due(now):
            self._ending.go_on(now)
        if self._saving.due(now):
            self._saving.begin(now)
            self._write_cut()

    def can_do_without(self, rank: int) -> bool:
        """Whether the job can go on if a rank is taken for dead: not before it has begun, when ranks may have much to
        do at a time.
        """
        return self.began and self._membership.can_do_without(rank)

    def lost(self, rank: int, now: float, silent: bool = False) -> None:
        """Take notice of a rank's death, or that it is `silent` and taken for dead."""
        role = self._view.role(rank)
        host = self.hellos[rank].host if rank in self.hellos else "?"
        if self._ending.over:
            return
        self._log("lost", rank=rank, role=role, **{"silent": True} if silent else {})
        loss = self._losses.detected(rank, self._view)
        try:
            text = self._membership.lost(rank)
        except BeyondRedundancy as problem:
            self._stop(
                End("failed", f"rank {rank} ({role} on {host}) died: {problem}"),
                now,
                save=rank not in self._view.servers,
            )
            return
        self._losses.viewed(loss, self._membership.view.number, text)
        self._growth.lost(rank)
        self._change_view(now)

    def scale(self, name: str, servers: int | None, workers: int | None, spares: int | None, now: float) -> None:
        """Somebody wants so many servers and workers, or so many spares more; the effects answer the request of this
        name.
        """
        if self._ending.over or self._ending.begun:
            self._effects.answer(name, "refused", "the job is ending")
            return
        if spares is not None:
            self._growth.ask_for_spares(name, spares)
        else:
            self._growth.ask(name, servers, workers)
        self._change_view(now)
        self._growth.settle()

    def trace(self, name: str, table: str, keys: list[int], stop: bool) -> None:
        """Somebody wants what happens to keys of a table to be recorded, or no longer; the effects answer the request
        of this name.
        """
        if self._ending.over or self._ending.begun:
            self._effects.answer(name, "refused", "the job is ending")
        else:
            self._traces.ask(name, table, keys, stop, self._view.servers)

    def interrupt(self, reason: str, now: float) -> None:
        """Someone wants the job to end: with a checkpoint."""
        self._stop(End("interrupted", reason), now)

    def fail(self, reason: str, now: float) -> None:
        """Something is wrong here: end the job, with a checkpoint if there is anything to save."""
        self._stop(End("failed", reason), now)

    # --- views ------------------------------------------------------------------------------------------------------

    def _view_taken(self, source: int, message: m.ViewTaken, now: float) -> None:
        self._membership.taken(source, message.number)
        self._change_view(now)

    def _born(self, source: int, message: m.Born, now: float) -> None:
        if not self._ending.begun:
            self._growth.born(source, message.rank, message.error)
            self._change_view(now)

    def _copies_whole(self, source: int, message: m.CopiesWhole, now: float) -> None:
        self._membership.copies_whole(source, message.number)
        self._change_view(now)

    def _drained(self, source: int, message: m.Drained, now: float) -> None:
        self.tally.copied[source] = message.copied
        self._membership.drained(source, message.number)
        self._change_view(now)

    def _resumed(self, source: int, message: m.Resumed, now: float) -> None:
        self._losses.resumed(message.number)

    def _change_view(self, now: float) -> None:
        """Carry out what membership wants; its view is in force from now on."""
        messages, self._membership.messages = self._membership.messages, []
        for dest, message in messages:
            self._send(dest, message)
        old, new = self._view, self._membership.view
        if new is old:
            return
        self.viewed(old, new, now)
        if self._membership.settled:
            self._growth.settle()
            self._losses.settled()

    # --- up ---------------------------------------------------------------------------------------------------------

    def _hello(self, source: int, message: m.Hello, now: float) -> None:
        self.hellos[source] = message
        self._create(now)

    def _data_ready(self, source: int, message: m.DataReady, now: float) -> None:
        self._startup.data_ready(source, message)
        self._create(now)

    def _create(self, now: float) -> None:
        problem = self._startup.go_on(self._view, now) if not self._ending.begun else None
        if problem is not None:
            self.fail(problem, now)
        self._membership.tables = self._saving.tables = self._startup.tables

    def _tables_ready(self, source: int, message: m.TablesReady, now: float) -> None:
        self._go_on(self._startup.tables_ready(source, message, self._view), now)

    def _go_on(self, problem: str | None, now: float) -> None:
        """Begin, if the tables are made; or end, if there is a problem with them."""
        if problem is not None:
            self._stop(End("failed", problem), now, save=False)
        elif self._startup.complete and not self.began and not self._ending.begun:
            self._begin(now)

    def _begin(self, now: float) -> None:
        resumed = self._startup.resumed
        self.began = True
        self.tally.rows = self._startup.rows
        self.tally.begin(now)
        self._growth.begin(now)
        self._work.begin(self._startup.batches, resumed.progress if resumed else None, now)
        if self._plan.saves:
            self._saving.begin_periods(now)
        if resumed:
            self._saving.base = resumed.number
            self._log("note", text=f"resumed from {resumed.path}")
            self._log("restored", generation=resumed.number, seconds=now - self._startup.asked)
        self._log("training")
        for worker in self._view.workers:
            self._tell_to_begin(worker)

    def _tell_to_begin(self, worker: int) -> None:
        self._send(
            worker, m.Begin(self._startup.tables, self._startup.groups, self._places.of(worker), self._saving.crossed)
        )

    # --- work -------------------------------------------------------------------------------------------------------

    def viewed(self, old: View, new: View, now: float) -> None:
        """Take notice of a view that is in force now, perhaps with other workers."""
        self._view = new
        self._places.viewed(new)
        self._ending.viewed(new)
        if len(new.groups[MAIN]) == len(old.groups[MAIN]):  # whoever is new returns a result, too
            self.results = {place: self.results[place] for place in self.results if place in new.identities[MAIN]}
        self._create(now)
        self._go_on(self._startup.viewed(old, new), now)
        given_up = self._saving.viewed(old, new)
        if given_up is not None:
            self.completed(given_up, now)
        self._reply(self._sums.viewed())
        if self.began and not self._ending.begun:
            for worker in [worker for worker in new.workers if worker not in old.workers]:
                self._tell_to_begin(worker)
                if worker in new.groups[MAIN] and self._plan.delay_of(MAIN) is not None:
                    self._send(worker, m.SetDelay(self._work.delays.delay))
            self._evaluations.viewed(old, new)
        self._work.viewed(old, new, now)
        self._write_cut()
        self._conclude(now)

    def _work_request(self, source: int, message: m.WorkRequest, now: float) -> None:
        self._work.request(source, now)

    def _work_done(self, source: int, message: m.WorkDone, now: float) -> None:
        done = self._work.done(source, message, now)
        if done is None:
            return
        if not done.workload.train:
            group = self._places.group(source) or MAIN
            self._evaluations.add(group, message)
            if done.ends:
                self._evaluations.end(group, done.workload.epoch, self._view)
                if group == MAIN:
                    self._work.delays.begin(now)
        if self._saving.cut is not None and done.workload.train:
            self._saving.cut.done(message.number, message.rows)
            self._write_cut()
        self._ending.go_on(now)
        self._work.feed(now)

    def _sum(self, source: int, message: m.Sum, now: float) -> None:
        self._reply(self._sums.add(self._places.group(source) or MAIN, source, message))

    def _reply(self, replies: list[Reply]) -> None:
        for worker, reply in replies:
            self._send(worker, reply)

    def _figures(self, source: int, message: m.Report, now: float) -> None:
        """A program says how far it has come; a batch solver counts its passes."""
        self.metrics.update((name, figure) for name, figure in message.figures.items() if name not in OF_A_PASS)
        if "pass" in message.figures:
            self._passes = int(message.figures["pass"])
            self.tally.passed(self._passes, now)
        delays = self._work.delays
        if "objective" in message.figures and delays.reported(message.figures["objective"], message.idle):
            for worker in self._view.groups[MAIN]:
                self._send(worker, m.SetDelay(delays.delay))
        self._log("report", **message.figures)

    def _measured(self, source: int, message: m.Measured, now: float) -> None:
        self.tally.traffic[source] = message.traffic
        self.metrics.update(self._evaluations.measured(source, message))
        self._conclude(now)

    def _finished(self, source: int, message: m.Finished, now: float) -> None:
        self.tally.traffic[source] = message.traffic
        if self._places.group(source) == MAIN:
            self.tally.idle[source] = message.idle
            self.results[self._places.of(source)] = message.result
        self._conclude(now)

    def conducted(self, now: float) -> None:
        """Take notice that the scheduler's own program has returned."""
        self._conducted = True
        self._conclude(now)

    def _conclude(self, now: float) -> None:
        finished = self.results.keys() >= self._places.workers(MAIN).keys()
        if finished and not self._evaluations.measuring and self._conducted:
            self._stop(End("finished", "all work is done"), now)

    def _load(self, source: int, message: m.Load, now: float) -> None:
        self.tally.hear(source, message)

    def _note(self, source: int, message: m.Note, now: float) -> None:
        self._log("note", text=f"rank {source}: {message.text}")

    def _failed(self, source: int, message: m.Failed, now: float) -> None:
        self._log("failed", rank=source, reason=message.reason)
        self._stop(End("failed", message.reason), now)

    def _report(self, now: float) -> None:
        epochs = self._passes if self._plan.keeps_rows else self._work.finished_epochs
        epoch = min(epochs + 1, self._plan.passes)
        workers = self._view.groups[MAIN]
        fields = self.tally.report(epoch, self._plan.passes, self._view.servers, workers, now)
        self._log("progress", delay=self._work.delays.delay, **fields)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _progress(self) -> dict[str, Any]:
        return {**self._work.progress(), "examples": self.tally.examples}

    def _cut(self, generation: int) -> Cut:
        """Begin a cut: workers and workloads that have nothing to do with what comes before it go on."""
        progress, missing = self._work.cut(generation)
        for worker in self._view.workers:
            self._send(worker, m.Cut(generation))
        return Cut({**progress, "examples": self.tally.examples}, missing, self._view.workers)

    def _crossed(self, source: int, message: m.Crossed, now: float) -> None:
        if self._saving.cut is not None and message.generation == self._saving.crossed:
            self._saving.cut.crossed(source)
            self._write_cut()

    def _write_cut(self) -> None:
        """Have the cut written if it is made."""
        if self._saving.cut is not None and self._saving.cut.is_made(self._work.is_open):
            self._saving.cut_made()

    def _saved(self, source: int, message: m.Saved, now: float) -> None:
        self._ending.follow(self._saving.written(source, message.generation, message.error, now), now)

    def completed(self, error: str | None, now: float, worn: int = 0) -> None:
        """Take notice that the generation is complete, or why it is not; what was written before the generation `worn`
        should be written again.
        """
        if not self._ending.over:
            self._ending.follow(self._saving.end(error, now, worn), now)

    # --- down -------------------------------------------------------------------------------------------------------

    def _stop(self, end: End, now: float, save: bool = True) -> None:
        self._ending.begin(end, now, self.began, save)

    def _send(self, dest: int, message: m.Message) -> None:
        self._effects.send(dest, message)

    def _log(self, event: str, **fields: Any) -> None:
        self._effects.log(event, **fields)
