"""One rank's life: take the roles that the view gives, serve or run the job's program, leave when told to.

Views come one after the other. Whoever was to do something and is dead is waited for, until a view says who does it
instead. Only when the scheduler and all who could follow it are dead does a rank give up by itself.
"""

import os
import socket
import traceback
from collections.abc import Collection
from typing import Any, NamedTuple

from mpips.dataserver.server import DataServer
from mpips.errors import Error
from mpips.fabric import Fabric, PeerLost
from mpips.line import Line
from mpips.messages import Failed, Hello, Message, NewView, Note, Stop, ViewTaken
from mpips.plan import Plan
from mpips.rank.births import Births
from mpips.rank.heir import Heir
from mpips.rank.hosts import Hosts
from mpips.rank.last_words import give_up, refuse
from mpips.rank.programs import Programs, Stopped, blame
from mpips.rank.readiness import Readiness
from mpips.record import Record
from mpips.scheduler.conductor import Conductor
from mpips.scheduler.desk import Desk, SentAway, begin, results_of
from mpips.scheduler.pulse import Pulse
from mpips.scheduler.succession import with_standbys
from mpips.server.server import Server
from mpips.tasks import Issued, Received
from mpips.tasks.calls import Calls
from mpips.views.view import View
from mpips.worker.exchanges import Exchanges
from mpips.worker.worker import TO_WORKERS, Worker

NO_REPLACEMENT = (
    "this MPI was started without ULFM: no copies are kept and no spare replaces a rank; "
    "one that dies ends the job, which --resume goes on with"
)


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
        self._wish = ""
        self._early: list[tuple[int, Message]] = []  # for roles that this rank does not have yet
        self._issued, self._received = Issued(fabric), Received(fabric)
        self._exchanges = Exchanges(fabric)
        self._issued.is_read = lambda: self._exchanges.unread > 0
        self._line = Line(fabric, view.scheduler)
        self._calls = Calls(self._received, self._issued)
        self._programs = Programs(fabric, self._line, lambda: self.view, plan)
        self._heir = Heir(fabric, lambda: self.view, plan)
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
        fabric.background.append(self._follow)
        Readiness(fabric, self.view)
        if plan.patience is not None and fabric.survives:
            Pulse(fabric, lambda: self.view, plan.patience, self._silence)
        if fabric.survives and len(set(self.view.nodes)) > 1:
            limit = plan.network.timeout
            Hosts(
                fabric,
                lambda: self.view,
                limit,
                self._host_silent,
                self._cut_off,
                lambda text: self._line.tell(Note(text)),
            )

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
            return Outcome(*give_up(self._fabric, self.view, self._plan), [])

    def _live(self) -> Outcome:
        fabric, plan = self._fabric, self._plan
        if fabric.rank == self.view.scheduler:
            self._desk = self._begin()
            self._desk.wish = self._wish  # of the time that took: a checkpoint may have been read
            self._desk.open()
        self._take_roles()
        self._line.tell(Hello(socket.gethostname(), os.getpid()))
        conducted = None
        if self._desk is not None and plan.conduct is not None:
            self._conductor = Conductor(self._issued, self.view)
            conducted = self._programs.conduct(plan.conduct, self._desk, self._conductor)
        while self._stop is None:
            self._serve()
            if self._to_run is not None:
                worker, self._to_run = self._to_run, None
                self._programs.work(worker)
                if worker.left:
                    self._forget_worker()
                    self._take_roles()
        results = results_of(self._desk) if self._desk is not None else []
        return Outcome(self._stop.exit, self._stop.reason, results, conducted)

    def _begin(self) -> Desk:
        """The desk of a job that begins.

        Raises
        ------
        Stopped
            when it can't begin; then everyone is told.
        """
        fabric, plan = self._fabric, self._plan
        try:
            record = Record(plan.run)
            replica = begin(self.view, plan, record, self._resume, fabric.now())
            if not fabric.survives and (self.view.spares or min(plan.replicas, len(self.view.servers) - 1) > 0):
                record.event({"event": "note", "text": NO_REPLACEMENT})
        except Error as error:
            refuse(fabric, self.view, plan, str(error))
            raise Stopped(str(error)) from error
        return Desk(fabric, self.view, plan, record, replica, 0.0, self._mpi)

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
            reason = blame(self.view, self._fabric.rank, error)
            if self._desk is not None:
                self._desk.fail(reason)
            else:
                self._line.tell(Failed(reason))

    def _stopped(self, source: int, message: Stop) -> None:
        self._stop = message
        if self._programs.running:
            raise Stopped(message.reason)

    # --- roles ------------------------------------------------------------------------------------------------------

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
        self._exchanges.viewed(new.lost)
        for role in (self._server, self._data_server, self._worker, self._desk, self._conductor):
            if role is not None:
                role.viewed(old, new)
        if self._fabric.rank in old.workers and self._fabric.rank not in new.workers:
            self._leave_work()
        self._take_roles()
        self._line.tell(ViewTaken(new.number))

    def _take_roles(self) -> None:
        """Take the roles that the view gives this rank, and that it does not have yet."""
        fabric, view, plan, line = self._fabric, self.view, self._plan, self._line
        try:
            if fabric.rank in view.servers and self._server is None:
                self._server = Server(
                    fabric, view, line, self._received, plan.writing, plan.threads or self._threads(), self._copy_share
                )
                self._calls.serve(self._server)
            if plan.data is not None and fabric.rank in view.data_servers and self._data_server is None:
                self._data_server = DataServer(
                    fabric, view, line, plan.data, plan.base, plan.run, self._threads(), plan.traced_names
                )
                self._calls.serve(self._data_server)
            if fabric.rank in view.workers and self._worker is None:
                delay = plan.delay_of(view.group_of(fabric.rank))
                self._worker = self._to_run = Worker(
                    fabric, view, line, self._issued, self._exchanges, delay, self._threads()
                )
                self._worker.on_begin = self._calls.begin
                self._calls.serve(self._worker, begun=False)
        except Error as error:
            line.tell(Failed(str(error)))
        early, self._early = self._early, []
        for source, message in early:
            fabric.dispatch(source, message)

    def _leave_work(self) -> None:
        """This rank is a worker no longer; perhaps it will be one again, even before its program has ended."""
        self._early = [(source, message) for source, message in self._early if not isinstance(message, TO_WORKERS)]
        if self._worker is not None and not self._worker.left:
            self._worker.leave()
            if not self._programs.running:
                self._forget_worker()

    def _forget_worker(self) -> None:
        """The program of a worker that has left is over, or had not begun."""
        assert self._worker is not None
        self._worker.close()
        self._worker = self._to_run = None
        self._calls.serve(self._server or self._data_server)
        self._calls.begin()

    def _cores(self, idle: Collection[int] = ()) -> float:
        """Cores of this node that there are for each of its ranks but those that are idle."""
        nodes, me = self.view.nodes, self._fabric.rank
        sharing = [rank for rank, node in enumerate(nodes) if node == nodes[me] and (rank not in idle or rank == me)]
        return self._fabric.cores / len(sharing)

    def _threads(self) -> int:
        """How many of its threads may compute at once."""
        return max(1, int(self._cores()))

    def _copy_share(self, view: View) -> float:
        """The share of a server's own time that goes into copying: where cores have several ranks, of what it has."""
        return self._plan.copy_share * min(1.0, self._cores({*view.spares, *view.lost}))

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
        else:
            self._heir.silence(rank)

    def _host_silent(self, rank: int) -> None:
        """The host of a rank has fallen silent."""
        if self._desk is not None:
            self._desk.lost(rank, silent=True)
        else:
            self._heir.silent.add(rank)

    def _cut_off(self, why: str) -> None:
        """The others go on without this rank."""
        raise SentAway(f"rank {self._fabric.rank} is cut off: {why}")

    def _follow(self) -> bool:
        """Take the place of the scheduler when that is dead and it is this rank's turn."""
        if self._desk is not None or self._stop is not None or not self._heir.has_its_turn():
            return False
        self._succeed()
        return True

    def _succeed(self) -> None:
        """Become the scheduler. Without its state: it has done nothing that anyone could have seen, as that waits until
        the state is here.
        """
        replica, ahead = self._heir.replica, self._heir.ahead
        if replica is None:
            self._desk = self._begin()
        else:
            record, view = Record(self._plan.run, fresh=False), replica.scheduler.view
            self._desk = Desk(self._fabric, view, self._plan, record, replica, ahead, self._mpi)
        self._desk.wish = self._wish
        self._fabric.ignored |= self._heir.gone  # who comes back must not change what is this rank's now
        self._desk.take_over(self._heir.silent)
