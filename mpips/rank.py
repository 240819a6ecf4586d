"""One rank's life: take the roles that the view gives, serve or run the job's program, leave when told to.

Views come one after the other. Whoever was to do something and is dead is waited for, until a view says who does it
instead. Only when the scheduler and all who could follow it are dead does a rank give up by itself.
"""

import contextlib
import math
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mpips.births import Births
from mpips.dataserver.server import DataServer
from mpips.errors import Error
from mpips.fabric import Fabric, PeerLost
from mpips.kernels.checksum import fletcher32
from mpips.line import Line
from mpips.messages import Failed, FromScheduler, Hello, Message, NewView, Snapshot, Stop, ViewTaken, decode
from mpips.plan import Plan
from mpips.record import Record, RunFolderError
from mpips.scheduler.conductor import Conductor
from mpips.scheduler.desk import Desk, SentAway, begin, results_of
from mpips.scheduler.pulse import Pulse
from mpips.scheduler.replica import Replica, pack
from mpips.scheduler.standby import Standby
from mpips.scheduler.succession import with_standbys
from mpips.server.server import Server
from mpips.tasks import Issued, Received
from mpips.tasks.calls import Calls
from mpips.views.view import MAIN, View
from mpips.worker.worker import TO_WORKERS, Leaves, Worker

TURN = 1.0  # seconds between two spares that get ready: it takes a third of that from whoever shares the core
PATIENCE = 1.0  # seconds for a standby that this rank has not heard of yet to say that it is the scheduler


class Stopped(Error):
    """The scheduler has ended the job while this rank's program was running."""


def load_numba() -> None:
    """Have numba ready: the first kernel of a process takes a third of a second."""
    fletcher32(np.zeros(2, np.uint16))


class Outcome(NamedTuple):
    """How a job ended: "finished", "failed" or "interrupted", or "lost" on a rank that had to leave before; on the
    scheduler also the programs' results, and what its own program returned.
    """

    exit: str
    reason: str
    results: list[Any]
    conducted: Any = None


class Rank:
    """A rank of a job over any fabric.

    Parameters
    ----------
    fabric, view, plan : the rank's way to the others, who does what at first, and the job.
    resume : whether to go on from a checkpoint.
    mpi : name and version of the MPI library, for the result.

    Attributes
    ----------
    view : who does what now.
    """

    def __init__(self, fabric: Fabric, view: View, plan: Plan, resume: bool = False, mpi: str = "") -> None:
        self.view = with_standbys(view, plan) if fabric.survives else view
        self._fabric = fabric
        self._plan = plan
        self._resume = resume
        self._mpi = mpi
        self._stop: Stop | None = None
        self._handed_on: set[int] = set()  # ranks that were given the state in the place of a dead scheduler
        self._wish = ""
        self._refusal = ""  # why the job can't begin
        self._running = False
        self._conducted: Any = None
        self._early: list[tuple[int, Message]] = []  # for roles that this rank does not have yet
        self._silent: set[int] = set()  # schedulers of which this rank, a standby, has heard nothing for too long
        self._orphaned: float | None = None  # since when nobody is known who could be the scheduler
        self._issued, self._received = Issued(fabric), Received(fabric)
        self._line = Line(fabric, view.scheduler)
        self._calls = Calls(self._received, self._issued)
        self._standby = Standby(fabric, plan)
        Births(fabric, self._line, lambda: self.view)
        self._desk: Desk | None = None
        self._server: Server | None = None
        self._data_server: DataServer | None = None
        self._worker: Worker | None = None
        self._conductor: Conductor | None = None
        self._to_run: Worker | None = None
        fabric.on(Stop, self._stopped)
        fabric.on(NewView, self._viewed)
        fabric.on_lost = self._lost
        fabric.on_unknown = lambda source, message: self._early.append((source, message))
        fabric.patient = True
        spares = self.view.spares
        self._turn = fabric.now() + TURN * (1 + spares.index(fabric.rank)) if fabric.rank in spares else math.inf
        if fabric.rank in self.view.standbys:
            load_numba()  # later the scheduler would wait for it
            self._turn = math.inf
        fabric.background += [self._watch, self._get_ready]
        if plan.patience is not None and fabric.survives:
            Pulse(fabric, lambda: self.view, plan.patience, self._silence)

    def wish_to_end(self, reason: str) -> None:
        """Have the job end with a checkpoint, if this is, or comes to be, the scheduler's rank; safe to call from a
        signal handler.
        """
        self._wish = reason
        if self._desk is not None:
            self._desk.wish = reason

    def live(self) -> Outcome:
        """Do what the roles ask for until the job is over."""
        try:
            return self._live()
        except SentAway as error:
            return Outcome("lost", str(error), [])
        except Stopped as error:
            return Outcome("failed", str(error), [])
        except PeerLost:
            return self._give_up()

    def _live(self) -> Outcome:
        fabric, plan = self._fabric, self._plan
        if fabric.rank == self.view.scheduler:
            self._desk = self._begin()
            if self._desk is None:
                return Outcome("failed", self._refusal, [])
            self._desk.open()
        self._take_roles()
        self._line.tell(Hello(socket.gethostname(), os.getpid()))
        if self._desk is not None and plan.conduct is not None:
            self._conductor = Conductor(self._issued, self.view)
            self._conduct(plan.conduct, self._desk, self._conductor)
        while self._stop is None:
            self._serve()
            if self._to_run is not None:
                worker, self._to_run = self._to_run, None
                self._run(worker)
        results = results_of(self._desk) if self._desk is not None else []
        return Outcome(self._stop.exit, self._stop.reason, results, self._conducted)

    def _begin(self) -> Desk | None:
        """The desk of a job that begins, or None when it can't: then everyone is told."""
        fabric, plan = self._fabric, self._plan
        try:
            record = Record(plan.run)
            replica = begin(self.view, plan, record, self._resume, fabric.now())
        except Error as error:
            self._refusal = str(error)
            self._announce("failed", self._refusal)
            with contextlib.suppress(RunFolderError):
                self._leave_result(Record(plan.run), self._refusal)
            return None
        return Desk(fabric, self.view, plan, record, replica, 0.0, self._mpi)

    # --- roles ------------------------------------------------------------------------------------------------------

    def _take_roles(self) -> None:
        """Take the roles that the view gives this rank, and that it does not have yet."""
        fabric, view, plan, line = self._fabric, self.view, self._plan, self._line
        try:
            if fabric.rank in view.servers and self._server is None:
                share = plan.copy_share * min(1.0, self._cores())  # of its own time, where cores have several ranks
                self._server = Server(fabric, view, line, self._received, plan.run, self._threads(), share)
                self._calls.serve(self._server)
            if plan.data is not None and fabric.rank in view.data_servers and self._data_server is None:
                self._data_server = DataServer(fabric, view, line, plan.data, plan.base, plan.run)
                self._calls.serve(self._data_server)
            if fabric.rank in view.workers and self._worker is None:
                delay = plan.delay_of(view.group_of(fabric.rank))
                self._worker = self._to_run = Worker(fabric, view, line, self._issued, delay)
                self._worker.on_begin = self._calls.begin
                self._calls.serve(self._worker, begun=False)
        except Error as error:
            line.tell(Failed(str(error)))
        early, self._early = self._early, []
        for source, message in early:
            fabric.dispatch(source, message)

    def _get_ready(self) -> bool:
        """Have numba ready, before a spare has any use for it."""
        if self._fabric.now() >= self._turn:
            self._turn = math.inf
            load_numba()
        return False

    def _viewed(self, source: int, message: NewView) -> None:
        old, new = self.view, message.view
        if self._fabric.rank in new.lost:
            raise SentAway(f"rank {self._fabric.rank} was taken for dead")
        self.view = new
        if len(new.nodes) > len(old.nodes):
            self._fabric.admit(new.nodes, set(new.lost) - set(range(len(old.nodes))))
        self._fabric.ignored |= set(new.lost)
        if set(new.lost) - set(old.lost) - self._fabric.lost:
            self._fabric.space.keep()
        if new.scheduler != old.scheduler:
            self._line.lead_to(new.scheduler)
        self._issued.viewed(new.lost)
        for role in (self._server, self._data_server, self._worker, self._desk, self._conductor):
            if role is not None:
                role.viewed(old, new)
        if self._fabric.rank in old.workers and self._fabric.rank not in new.workers:
            self._leave_work()
        self._take_roles()
        self._line.tell(ViewTaken(new.number))

    def _serve(self) -> None:
        """Handle messages until there is a program to run, or the job is over; whatever goes wrong in a handler ends
        the job.
        """
        role = self.view.role(self._fabric.rank)
        try:
            self._fabric.wait(
                lambda: self._stop is not None or self._to_run is not None,
                f"the end of the job, as {role}",
                lambda: {self.view.scheduler},
                timeout=None,
            )
        except (PeerLost, SentAway, Stopped):
            raise
        except Exception as error:
            traceback.print_exc()
            self._fail(self._blame(error))

    def _fail(self, reason: str) -> None:
        if self._desk is not None:
            self._desk.fail(reason)
        else:
            self._line.tell(Failed(reason))

    def _blame(self, error: BaseException) -> str:
        last = traceback.extract_tb(error.__traceback__)[-1]
        who = f"{self.view.role(self._fabric.rank)} {self._fabric.rank}"
        return f"{who}: {type(error).__name__} at {last.filename}:{last.lineno}: {error}"

    def _threads(self) -> int:
        if self._plan.threads:
            return self._plan.threads
        return max(1, int(self._cores()))

    def _cores(self) -> float:
        """Cores of this node that there are for each of its ranks."""
        node = self.view.nodes[self._fabric.rank]
        return len(os.sched_getaffinity(0)) / self.view.nodes.count(node)

    # --- programs ---------------------------------------------------------------------------------------------------

    def _run(self, worker: Worker) -> None:
        """Run the program of the worker's group."""
        program = self._plan.program if worker.group == MAIN else self._plan.groups[worker.group].program

        def run() -> None:
            result = None
            with contextlib.suppress(Leaves):
                worker.wait_for_begin()
                result = program(worker)
            worker.settle()
            if not worker.left:
                worker.finish(result)

        self._guard(run)
        if worker.left:
            self._forget_worker()
            self._take_roles()

    def _leave_work(self) -> None:
        """This rank is a worker no longer; perhaps it will be one again, even before its program has ended."""
        self._early = [(source, message) for source, message in self._early if not isinstance(message, TO_WORKERS)]
        if self._worker is not None and not self._worker.left:
            self._worker.leave()
            if not self._running:
                self._forget_worker()

    def _forget_worker(self) -> None:
        """The program of a worker that has left is over, or had not begun."""
        assert self._worker is not None
        self._worker.close()
        self._worker = self._to_run = None
        self._calls.serve(self._server or self._data_server)
        self._calls.begin()

    def _conduct(self, program: Callable[[Conductor], Any], desk: Desk, conductor: Conductor) -> None:
        """Run the scheduler's own program."""

        def run() -> None:
            self._fabric.wait(lambda: desk.replica.scheduler.began, "the start of the job", timeout=None)
            self._conducted = program(conductor)
            desk.conducted()

        self._guard(run)

    def _guard(self, run: Callable[[], None]) -> None:
        """Run a program; whatever goes wrong in it ends the job, and the scheduler says why."""
        self._running = True
        try:
            run()
        except Stopped:
            pass
        except (PeerLost, SentAway):
            raise
        except Error as error:
            self._line.tell(Failed(str(error)))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            traceback.print_exc()
            self._line.tell(Failed(self._blame(error)))
        finally:
            self._running = False

    def _stopped(self, source: int, message: Stop) -> None:
        self._stop = message
        if self._running:
            raise Stopped(message.reason)

    # --- death of others --------------------------------------------------------------------------------------------

    def _lost(self, rank: int) -> None:
        if self._fabric.lost.issuperset(self.view.lost):
            self._fabric.space.release()
        if self._desk is not None and self._stop is None:
            self._desk.lost(rank)

    def _silence(self, rank: int) -> None:
        """Nothing is heard of a rank that this one watches."""
        if self._desk is not None:
            self._desk.silent(rank)
            return
        replica = self._standby.replica
        if replica is not None and rank == replica.scheduler.view.scheduler and replica.scheduler.began:
            self._silent.add(rank)

    def _gone(self) -> set[int]:
        return self._fabric.lost | self._silent

    def _watch(self) -> bool:
        """See whether the scheduler lives; take its place when it is this rank's turn.

        Raises
        ------
        PeerLost
            when nobody can be the scheduler any more.
        """
        gone = self._gone()
        if not gone or self._desk is not None or self._stop is not None:
            return False
        replica = self._standby.replica
        if replica is not None and replica.scheduler.view.number < self.view.number:
            replica = None  # of times when this rank was a standby
        view = replica.scheduler.view if replica is not None else self.view
        heir = self._heir(view)
        if view.scheduler not in gone or heir not in (self._fabric.rank, None):
            self._orphaned = None
            if view.scheduler in gone and replica is not None:
                self._hand_on(replica, heir)
        elif heir is not None and (replica is not None or view.number == 1):
            self._succeed(replica)
            return True
        elif self._orphaned is None:
            self._orphaned = self._fabric.now()
        elif self._fabric.now() - self._orphaned > PATIENCE:
            raise PeerLost(f"rank {view.scheduler} (scheduler) died")
        return False

    def _hand_on(self, replica: Replica, heir: int | None) -> None:
        """Give the state to the standby that gets this rank's place: the scheduler may have died before it did so."""
        if heir is not None and heir not in self._handed_on:
            self._handed_on.add(heir)
            self._fabric.send(heir, Snapshot(replica.scheduler.view.number, replica.index, pack(replica)))

    def _succeed(self, replica: Replica | None) -> None:
        """Become the scheduler. Without its state: it has done nothing that anyone could have seen, as that waits until
        the state is here.
        """
        if replica is None:
            self._desk = self._begin()
        else:
            record, ahead, view = Record(self._plan.run, fresh=False), self._standby.ahead, replica.scheduler.view
            self._desk = Desk(self._fabric, view, self._plan, record, replica, ahead, self._mpi)
        if self._desk is None:
            raise Stopped(self._refusal)
        self._desk.wish = self._wish
        self._fabric.ignored |= self._gone()  # who comes back must not change what is this rank's now
        self._desk.take_over(self._silent)

    def _heir(self, view: View) -> int | None:
        """The first standby that lives."""
        return next((rank for rank in view.standbys if rank not in self._gone()), None)

    def _give_up(self) -> Outcome:
        """The scheduler is dead, and nobody follows it, as far as this rank knows: others, who may know of a later view
        in which it is this rank that follows, are told. If it had come to write how the job ended, that is the end.
        """
        record = Record(self._plan.run, fresh=False)
        end = record.end
        if end is None:
            end = "failed", f"rank {self.view.scheduler} (scheduler) died"
            self._leave_result(record, end[1])
        self._announce(*end)
        return Outcome(*end, [])

    def _announce(self, exit_: str, reason: str) -> None:
        """Stop all others, in place of a scheduler that can't."""
        for rank in range(self._fabric.size):
            if rank != self._fabric.rank:
                self._fabric.send(rank, Stop(exit_, reason))

    def _leave_result(self, record: Record, reason: str) -> None:
        """Say how the job ended, in place of a scheduler that can't."""
        if record.first_result({"exit": "failed", "reason": reason, "metrics": {}, "roles": self.view.counts()}):
            record.event({"event": "end", "exit": "failed", "reason": reason})


def join(fabric: Fabric, plan: Plan, mpi: str = "") -> Rank:
    """The rank of a process that has come to a running job, when its first view is there.

    Raises
    ------
    PeerLost
        when its parent dies before.
    Deadline
        when no view comes.
    """
    early: list[tuple[int, Message]] = []
    fabric.on_unknown = lambda source, message: early.append((source, message))

    def views() -> list[View]:
        said = [decode(message.message) for _, message in early if isinstance(message, FromScheduler)]
        return [message.view for message in said if isinstance(message, NewView)]

    parent = fabric.parent
    fabric.wait(lambda: bool(views()), "its first view", lambda: set() if parent is None else {parent})
    rank = Rank(fabric, views()[0], plan, mpi=mpi)
    for source, message in early:
        fabric.dispatch(source, message)
    return rank
