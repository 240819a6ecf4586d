"""One rank's life: take a role, serve or run the job's program, leave when the scheduler says so."""

import contextlib
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from mpips.dataserver.server import DataServer
from mpips.errors import Error
from mpips.fabric import Fabric, PeerLost
from mpips.messages import Failed, Hello, Stop
from mpips.plan import Plan
from mpips.record import Record, RunFolderError
from mpips.scheduler.conductor import Conductor
from mpips.scheduler.desk import Desk, results_of
from mpips.scheduler.line import Line
from mpips.scheduler.view import MAIN, View
from mpips.server.server import Server
from mpips.tasks import Issued, Received
from mpips.tasks.calls import Calls
from mpips.worker.worker import Worker


class Stopped(Error):
    """The scheduler has ended the job while this rank's program was running."""


class Outcome(NamedTuple):
    """How a job ended: "finished", "failed" or "interrupted"; on the scheduler also the programs' results, and what its
    own program returned.
    """

    exit: str
    reason: str
    results: list[Any]
    conducted: Any = None


class Rank:
    """A rank of a job over any fabric.

    Parameters
    ----------
    fabric, view, plan : the rank's way to the others, who does what, and the job.
    resume : whether to go on from a checkpoint.
    mpi : name and version of the MPI library, for the result.
    """

    def __init__(self, fabric: Fabric, view: View, plan: Plan, resume: bool = False, mpi: str = "") -> None:
        self._fabric = fabric
        self._view = view
        self._plan = plan
        self._resume = resume
        self._mpi = mpi
        self._stop: Stop | None = None
        self._running = False
        self._conducted: Any = None
        self._desk: Desk | None = None
        fabric.on(Stop, self._stopped)
        fabric.on_lost = self._lost

    def wish_to_end(self, reason: str) -> None:
        """Have the job end with a checkpoint, if this is the scheduler's rank; safe to call from a signal handler."""
        if self._desk is not None:
            self._desk.wish = reason

    def live(self) -> Outcome:
        """Do what the role asks for until the job is over."""
        try:
            return self._live()
        except PeerLost as error:
            if self._view.scheduler not in self._fabric.lost:
                return Outcome("failed", str(error), [])
            reason = f"rank {self._view.scheduler} (scheduler) died"
            if self._fabric.rank == min(set(range(self._fabric.size)) - self._fabric.lost):
                self._leave_result(Record(self._plan.run, fresh=False), reason)
            return Outcome("failed", reason, [])

    def _live(self) -> Outcome:
        fabric, view, plan = self._fabric, self._view, self._plan
        worker: Worker | None = None
        role: Server | DataServer | Worker | None = None
        issued, received, line = Issued(fabric), Received(fabric), Line(fabric, view.scheduler)
        try:
            if fabric.rank == view.scheduler:
                self._desk = Desk(fabric, view, plan, Record(plan.run), self._resume, self._mpi)
            if fabric.rank in view.servers:
                role = Server(fabric, view, line, received, plan.run, self._threads())
            if plan.data is not None and fabric.rank in view.data_servers:
                role = DataServer(fabric, view.data_servers, line, plan.data, plan.base, plan.run)
            if fabric.rank in view.workers:
                delay = plan.delay_of(view.group_of(fabric.rank))
                role = worker = Worker(fabric, view, line, issued, delay)
        except Error as error:
            if fabric.rank == view.scheduler and self._desk is None:
                self._announce_refusal(str(error))
                return Outcome("failed", str(error), [])
            fabric.send(view.scheduler, Failed(str(error)))
        calls = Calls(received, issued, role, begun=worker is None)
        if worker is not None:
            worker.on_begin = calls.begin
        fabric.send(view.scheduler, Hello(socket.gethostname(), os.getpid()))
        if worker is not None:
            self._run(worker)
        if self._desk is not None and plan.conduct is not None:
            self._conduct(plan.conduct, self._desk, Conductor(issued, view))
        while self._stop is None:
            self._serve()
        results = results_of(self._desk) if self._desk is not None else []
        return Outcome(self._stop.exit, self._stop.reason, results, self._conducted)

    def _serve(self) -> None:
        """Handle messages until the job is over; whatever goes wrong in a handler ends the job."""
        fabric, role = self._fabric, self._view.role(self._fabric.rank)
        try:
            scheduler = {self._view.scheduler}
            fabric.wait(
                lambda: self._stop is not None, f"the end of the job, as {role}", lambda: scheduler, timeout=None
            )
        except PeerLost:
            raise
        except Exception as error:
            traceback.print_exc()
            if self._desk is not None:
                self._desk.fail(self._blame(role, error))
            else:
                fabric.send(self._view.scheduler, Failed(self._blame(role, error)))

    def _blame(self, role: str, error: BaseException) -> str:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{role} {self._fabric.rank}: {type(error).__name__} at {last.filename}:{last.lineno}: {error}"

    def _run(self, worker: Worker) -> None:
        """Run the program of the worker's group."""
        program = self._plan.program if worker.group == MAIN else self._plan.groups[worker.group].program

        def run() -> None:
            worker.wait_for_begin()
            result = program(worker)
            worker.settle()
            worker.finish(result)

        self._guard(run)

    def _conduct(self, program: Callable[[Conductor], Any], desk: Desk, conductor: Conductor) -> None:
        """Run the scheduler's own program."""

        def run() -> None:
            self._fabric.wait(lambda: desk.scheduler.began, "the start of the job", timeout=None)
            self._conducted = program(conductor)
            desk.conducted()

        self._guard(run)

    def _guard(self, run: Callable[[], None]) -> None:
        """Run a program; whatever goes wrong in it ends the job, and the scheduler says why."""
        scheduler = self._view.scheduler
        self._running = True
        try:
            run()
        except Stopped:
            pass
        except PeerLost:  # the scheduler sees it too, and decides; if it is the scheduler itself, nobody does
            if scheduler in self._fabric.lost:
                raise
        except Error as error:
            self._fabric.send(scheduler, Failed(str(error)))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            traceback.print_exc()
            self._fabric.send(scheduler, Failed(self._blame(self._view.role(self._fabric.rank), error)))
        finally:
            self._running = False

    def _stopped(self, source: int, message: Stop) -> None:
        self._stop = message
        if self._running:
            raise Stopped(message.reason)

    def _lost(self, rank: int) -> None:
        if self._desk is not None:
            self._desk.lost(rank)
        elif rank == self._view.scheduler and self._stop is None:
            raise PeerLost(f"rank {rank}, the scheduler, is dead")

    def _announce_refusal(self, reason: str) -> None:
        for rank in range(self._fabric.size):
            if rank != self._fabric.rank:
                self._fabric.send(rank, Stop("failed", reason))
        with contextlib.suppress(RunFolderError):
            self._leave_result(Record(self._plan.run), reason)

    def _leave_result(self, record: Record, reason: str) -> None:
        """Say how the job ended, in place of a scheduler that can't."""
        record.event({"event": "end", "exit": "failed", "reason": reason})
        record.result({"exit": "failed", "reason": reason, "metrics": {}, "roles": self._view.counts()})

    def _threads(self) -> int:
        if self._plan.threads:
            return self._plan.threads
        node = self._view.nodes[self._fabric.rank]
        return max(1, len(os.sched_getaffinity(0)) // self._view.nodes.count(node))
