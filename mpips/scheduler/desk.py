"""The scheduler's rank: carries out what the state machine decides, and keeps the run folder.

What comes in goes to the standbys first; what follows from it is carried out when each of them has it. So whatever
anyone has seen of the scheduler, its successor knows where it came from.
"""

import contextlib
import platform
from collections import deque
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mpips.checkpoint import (
    CheckpointError,
    Generation,
    drop_failed,
    drop_old,
    drop_unfinished,
    generations,
    next_generation,
)
from mpips.checkpoint.master import write_master
from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.messages import (
    Broken,
    Completed,
    Conducted,
    Died,
    Heard,
    Input,
    Inputs,
    Interrupted,
    Load,
    Mirrored,
    NewView,
    Said,
    Scaled,
    SchedulerHeard,
    Snapshot,
    Ticked,
    ToScheduler,
    TraceWanted,
)
from mpips.plan import Plan
from mpips.record import Record
from mpips.scheduler import requests
from mpips.scheduler.effects import Answer, Complete, Discard, End
from mpips.scheduler.replica import Action, Post, Replica, Write, pack
from mpips.scheduler.scheduler import Scheduler
from mpips.scheduler.startup import Resume
from mpips.views.view import View

PACKAGES = ("mpips", "mpi4py", "numpy", "numba", "h5py")


@cache
def _versions() -> dict[str, str]:
    """Of what the job runs on; looking them up takes milliseconds."""
    return {**{name: version(name) for name in PACKAGES}, "python": platform.python_version()}


class ResumeError(Error, OSError):
    """There is no checkpoint to go on from."""


def begin(view: View, plan: Plan, record: Record, resume: bool, now: float) -> Replica:
    """The state of a job that begins.

    Raises
    ------
    ResumeError
        when it is to go on from a checkpoint, and there is none that can be used.
    """
    number = next_generation(plan.run) if plan.run is not None and plan.saves else 1
    scheduler = Scheduler(view, plan, _usable(plan, record) if resume else [], number)
    if plan.run is not None and plan.saves:
        with contextlib.suppress(CheckpointError):  # who writes there next will say so
            drop_unfinished(plan.run)
    record.event({"event": "start", "ranks": len(view.nodes), "roles": view.counts()})
    return Replica(scheduler, len(view.nodes), now)


def _usable(plan: Plan, record: Record) -> list[Resume]:
    usable, found = [], generations(plan.run) if plan.run is not None else []
    for path in found:
        try:
            with Generation(path) as generation:
                generation.verify()
                usable.append(Resume(str(path), generation.number, generation.progress))
        except CheckpointError as error:
            record.event({"event": "note", "text": f"{error}; the generation before is used"})
    if not usable:
        what = "none of its generations can be read" if found else "it has no complete generation"
        raise ResumeError(f"nothing to resume in {plan.run}: {what}; start without --resume")
    return usable


class SentAway(Error):
    """The others have taken this rank for dead, and go on without it."""


class Desk:
    """Registers the scheduler's handlers at a fabric.

    Parameters
    ----------
    fabric, view, plan : this rank's.
    record : the run folder's files.
    replica : the state to go on with.
    ahead : seconds by which the scheduler's clock is ahead of this rank's.
    mpi : name and version of the MPI library, for the result.

    Attributes
    ----------
    replica : the state.
    wish : why the job should end; set by a signal.
    """

    def __init__(
        self, fabric: Fabric, view: View, plan: Plan, record: Record, replica: Replica, ahead: float, mpi: str
    ) -> None:
        self.replica = replica
        self.wish = ""
        self._fabric = fabric
        self._view = view
        self._plan = plan
        self._record = record
        self._ahead = ahead
        self._mpi = mpi
        self._hosts_known = 0
        self._undone: deque[tuple[int, Action]] = deque()  # what follows from inputs, with the number of each
        self._done = replica.index  # inputs from which nothing is left to be done
        self._unsent: list[Input] = []
        self._untidy = ""  # why something could not be removed
        self._mirrored: dict[int, int] = {}  # inputs that each standby has
        fresh = replica.index == 0
        self._requests = requests.Requests(plan.run, fresh) if plan.run is not None else None
        fabric.on(ToScheduler, self._said)
        fabric.on(SchedulerHeard, self._heard)
        fabric.on(Load, self._load)
        fabric.on(Mirrored, self._have)
        fabric.background.append(self._step)

    def open(self) -> None:
        """Begin with a job that begins."""
        self._call_standbys()

    def take_over(self, silent: set[int]) -> None:
        """Go on in the place of a scheduler that has died, or is taken for dead as a `silent` one: with the dead that
        it may not have known of, with what it may have left undone (events, a generation that is not complete, the
        result), and with all that ranks may not have heard.

        Raises
        ------
        SentAway
            when another rank has done so already.
        """
        self._see_that_nobody_has_succeeded()
        replica, written = self.replica, self._record.last_event()
        undone: list[Action] = [event for event in replica.unwritten if event.number > written]
        undone += [answer for _, answer in replica.unanswered]
        undone += [action for action in (replica.incomplete, replica.end) if action is not None]
        first = [*self._view.standbys, self._view.scheduler]  # before this rank could get the place of another
        dead = self._fabric.lost | silent
        for rank in [*first, *sorted(dead - set(first))]:
            if rank not in dead or rank not in replica.sessions:
                continue
            actions = replica.apply(Died(self._now(), rank, rank not in self._fabric.lost))
            undone += [action for action in actions if not isinstance(action, Post)]
        undone += replica.again()
        self._undone.extend((replica.index, action) for action in undone)
        self._view = replica.scheduler.view
        self._record.succeed(self._fabric.rank, self._view.number)
        self._call_standbys()
        self._write_ranks()

    def _see_that_nobody_has_succeeded(self) -> None:
        """Raise `SentAway` when a rank has taken this one's place: this one was silent for a while, and those that took
        it for dead may have died since.
        """
        successor = self._record.successor(self._view.number)
        if successor is not None:
            raise SentAway(f"rank {self._fabric.rank} was taken for dead; rank {successor} came to be the scheduler")

    # --- what comes in ----------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return max(self.replica.time, self._fabric.now() + self._ahead)

    def _said(self, source: int, message: ToScheduler) -> None:
        if source in self.replica.sessions:
            self._take(Said(self._now(), source, message.number, message.heard, message.message))

    def _heard(self, source: int, message: SchedulerHeard) -> None:
        if source in self.replica.sessions:
            self._take(Heard(self._now(), source, message.number))

    def _load(self, source: int, message: Load) -> None:
        """Figures for the log alone: they are not worth a standby's attention."""
        self.replica.scheduler.handle(source, message, self._now())

    def _step(self) -> bool:
        now = self._now()
        if self.wish:
            wish, self.wish = self.wish, ""
            self._take(Interrupted(now, wish))
        if self.replica.scheduler.due(now):
            self._take(Ticked(now))
        for name, wanted in self._requests.new(now) if self._requests is not None else ():
            if isinstance(wanted, requests.Sizes):
                self._take(Scaled(now, name, wanted.servers, wanted.workers, wanted.spares))
            else:
                self._take(TraceWanted(now, name, wanted.table, wanted.keys, wanted.stop))
        return self._send_inputs()

    def lost(self, rank: int, silent: bool = False) -> None:
        """A rank is dead, or taken for dead as a `silent` one.

        Raises
        ------
        SentAway
            when that one was a standby that had taken this rank's place.
        """
        if self._mirrored.pop(rank, None) is not None:
            self._see_that_nobody_has_succeeded()
        if rank in self.replica.sessions:
            self._take(Died(self._now(), rank, silent))
        self._carry_out()
        self._write_ranks()

    def silent(self, rank: int) -> None:
        """Nothing was heard of a rank for too long: it is taken for dead, if the job can do without it."""
        if self.replica.scheduler.can_do_without(rank):
            self.lost(rank, silent=True)

    def conducted(self) -> None:
        """The scheduler's own program has returned."""
        self._take(Conducted(self._now()))

    def fail(self, reason: str) -> None:
        """Something is wrong on this rank."""
        self._take(Broken(self._now(), reason))

    def _take(self, given: Input) -> None:
        if self._mirrored:
            self._unsent.append(given)
        actions = self.replica.apply(given)
        self._undone.extend((self.replica.index, action) for action in actions)
        if not self._mirrored:
            self._carry_out()

    # --- standbys ---------------------------------------------------------------------------------------------------

    def viewed(self, old: View, new: View) -> None:
        """There is a new view, perhaps with other standbys. Who lives and is lost to it is told to leave."""
        self._view = new
        for rank in set(new.lost) - set(old.lost) - self._fabric.lost:
            self._fabric.send(rank, NewView(new))
        self._call_standbys()
        self._write_ranks()
        for rank in range(len(old.nodes), len(new.nodes)):
            if rank in self._fabric.lost and rank not in new.lost:  # it died before it had a place in a view
                self.lost(rank)

    def _call_standbys(self) -> None:
        """Have the standbys of the view mirror the state, and no others."""
        index = self.replica.index
        for rank in self._mirrored.keys() - set(self._view.standbys):
            del self._mirrored[rank]
        for rank in self._view.standbys:
            itself = rank == self._fabric.rank  # a standby whose job was over before there was a view without the other
            if rank not in self._mirrored and rank not in self._fabric.lost and not itself:
                self._mirrored[rank] = self._done
                self._fabric.send(rank, Snapshot(self._view.number, index, pack(self.replica)))
        self._carry_out()

    def _send_inputs(self) -> bool:
        """Send the standbys what has come in since the last step, in one message."""
        if not self._unsent:
            return False
        inputs, self._unsent = self._unsent, []
        message = Inputs(self.replica.index - len(inputs), self._done, inputs)  # type: ignore[arg-type]
        for rank in self._mirrored:
            self._fabric.send(rank, message)
        return True

    def _have(self, source: int, message: Mirrored) -> None:
        if source in self._mirrored:
            self._mirrored[source] = message.index
            self._carry_out()

    # --- what follows -----------------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        mirrored = min(self._mirrored.values(), default=self.replica.index)
        while self._undone and self._undone[0][0] <= mirrored:
            self._carry_out_one(self._undone.popleft()[1])
        self._done = max(self._done, mirrored)
        self.replica.done(self._done)
        if len(self.replica.scheduler.hellos) > self._hosts_known:
            self._hosts_known = len(self.replica.scheduler.hellos)
            self._write_ranks()

    def _carry_out_one(self, action: Action) -> None:
        match action:
            case Post(dest, message):
                self._fabric.send(dest, message)
            case Write(_, number, event):
                self._record.event(event, number)
            case Complete():
                self._complete(action)
            case Discard(generation):
                self._tidy(lambda run: drop_failed(run, generation))
            case Answer(name, stage, text):
                if self._requests is not None:
                    self._requests.answer(name, requests.Answer(stage, text))
                    self._requests.taken(name)
            case End():
                self._record.result(self._result(action))

    def _complete(self, action: Complete) -> None:
        run = self._plan.run
        assert run is not None
        error, worn = None, action.generation  # if this fails what it was to go on from may be damaged
        try:
            names = run / "names.h5"
            path = write_master(
                run,
                action.generation,
                action.servers,
                action.tables,
                self._plan.text,
                action.progress,
                names if names.exists() else None,
                action.base or None,
                self._plan.about,
            )
            with Generation(path) as generation:
                worn = generation.worn()
        except CheckpointError as problem:
            error = str(problem)
        if error is None:
            self._tidy(lambda run: drop_old(run, self._plan.keep, action.base))
        self._take(Completed(self._now(), error, worn))

    def _tidy(self, work: Callable[[Path], None]) -> None:
        """Remove something from the run folder; what can't be removed takes room, and costs no generation."""
        assert self._plan.run is not None
        try:
            work(self._plan.run)
        except CheckpointError as problem:
            if str(problem) != self._untidy:
                self._untidy = str(problem)
                self._record.event({"event": "note", "text": f"{problem}: what is not needed any more stays there"})

    def _write_ranks(self) -> None:
        self._record.ranks(
            [
                {
                    "rank": rank,
                    "role": self._view.role(rank),
                    "standby": rank in self._view.standbys,
                    "host": hello.host,
                    "pid": hello.pid,
                }
                for rank, hello in sorted(self.replica.scheduler.hellos.items())
                if rank not in self._fabric.lost
            ]
        )

    def _result(self, end: End) -> dict[str, Any]:
        tally = self.replica.scheduler.tally
        return {
            "exit": end.exit,
            "reason": end.reason,
            "metrics": self.replica.scheduler.metrics,
            "seconds": round(self._now() - self.replica.began, 3),
            "training_seconds": round(tally.seconds, 3),
            "examples": tally.examples,
            "examples_per_second": round(tally.examples / tally.seconds, 1) if tally.seconds else 0.0,
            "roles": self._view.counts(),
            "idle": {str(rank): round(share, 4) for rank, share in sorted(tally.idle.items())},
            "traffic": self._traffic(),
            "recoveries": self._record.recoveries(),
            "versions": {
                **_versions(),
                "mpi": self._mpi,
            },
        }

    def _traffic(self) -> dict[str, Any]:
        """Bytes between nodes: as they would have been without filters, as they were, and what each filter saved."""
        tally = self.replica.scheduler.tally
        workers, servers = (tally.sent(self._view.group(role)) for role in ("workers", "servers"))
        fetched = workers.fetched
        names = sorted({*workers.saved, *servers.saved})
        return {
            "workers": {"raw": workers.raw, "sent": workers.sent},
            "servers": {"raw": servers.raw + fetched, "sent": servers.sent + fetched},
            "filters": {name: workers.saved.get(name, 0) + servers.saved.get(name, 0) for name in names},
        }


def results_of(desk: Desk) -> list[Any]:
    """What the programs of the main group's workers returned, in order of their identities."""
    return [result for _, result in sorted(desk.replica.scheduler.results.items())]
