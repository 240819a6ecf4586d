"""The scheduler's rank: carries out what the state machine decides, and keeps the run folder."""

import platform
import time
from importlib.metadata import version
from typing import Any

from mpips.checkpoint import CheckpointError, Generation, drop_old, generations, next_generation
from mpips.checkpoint.master import write_master
from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.messages import Message
from mpips.plan import Plan
from mpips.record import Record
from mpips.scheduler.scheduler import Complete, End, Log, Resume, Scheduler, Send
from mpips.scheduler.view import View

PACKAGES = ("mpips", "mpi4py", "numpy", "numba", "h5py")


class ResumeError(Error, OSError):
    """There is no checkpoint to go on from."""


class Desk:
    """Registers the scheduler's handlers at a fabric.

    Parameters
    ----------
    fabric, view, plan : this rank's.
    record : the run folder's files.
    resume : whether to go on from the newest usable generation.
    mpi : name and version of the MPI library, for the result.

    Raises
    ------
    ResumeError
        when there is nothing to go on from.
    """

    def __init__(self, fabric: Fabric, view: View, plan: Plan, record: Record, resume: bool, mpi: str) -> None:
        self.scheduler: Scheduler
        self.end: End | None = None
        self.wish = ""  # set by a signal: why the job should end
        self._fabric = fabric
        self._view = view
        self._plan = plan
        self._record = record
        self._mpi = mpi
        self._start = time.monotonic()
        self._hosts_known = 0
        number = next_generation(plan.run) if plan.run is not None and plan.saves else 1
        self.scheduler = Scheduler(view, plan, self._usable() if resume else [], number)
        record.event({"event": "start", "ranks": fabric.size, "roles": view.counts()})
        for kind in self.scheduler.kinds():
            fabric.on(kind, self._handle)
        fabric.background.append(self._tick)

    def _usable(self) -> list[Resume]:
        run = self._plan.run
        usable, found = [], generations(run) if run is not None else []
        for path in found:
            try:
                with Generation(path) as generation:
                    generation.verify()
                    usable.append(Resume(str(path), generation.progress))
            except CheckpointError as error:
                self._record.event({"event": "note", "text": f"{error}; the generation before is used"})
        if not usable:
            what = "none of its generations can be read" if found else "it has no complete generation"
            raise ResumeError(f"nothing to resume in {run}: {what}; start without --resume")
        return usable

    def _handle(self, source: int, message: Message) -> None:
        self.scheduler.handle(source, message, self._fabric.now())
        self._carry_out()

    def _tick(self) -> bool:
        now = self._fabric.now()
        if self.wish:
            wish, self.wish = self.wish, ""
            self.scheduler.interrupt(wish, now)
        self.scheduler.tick(now)
        return self._carry_out()

    def lost(self, rank: int) -> None:
        """A rank is dead."""
        self.scheduler.lost(rank, self._fabric.now())
        self._carry_out()
        self._write_ranks()

    def conducted(self) -> None:
        """The scheduler's own program has returned."""
        self.scheduler.conducted(self._fabric.now())
        self._carry_out()

    def fail(self, reason: str) -> None:
        """Something is wrong on this rank."""
        self.scheduler.fail(reason, self._fabric.now())
        self._carry_out()

    def _carry_out(self) -> bool:
        effects = self.scheduler.effects
        if not effects:
            return False
        self.scheduler.effects = []
        for effect in effects:
            if isinstance(effect, Send):
                self._fabric.send(effect.dest, effect.message)
            elif isinstance(effect, Log):
                self._record.event(effect.event)
            elif isinstance(effect, Complete):
                self._complete(effect)
            else:
                self.end = effect
                self._record.result(self._result(effect))
        if len(self.scheduler.hellos) > self._hosts_known:
            self._hosts_known = len(self.scheduler.hellos)
            self._write_ranks()
        return True

    def _complete(self, effect: Complete) -> None:
        run = self._plan.run
        assert run is not None
        error = None
        try:
            names = run / "names.h5"
            write_master(
                run,
                effect.generation,
                self._view.servers,
                effect.tables,
                self._plan.text,
                effect.progress,
                names if names.exists() else None,
            )
            drop_old(run, self._plan.keep)
        except CheckpointError as problem:
            error = str(problem)
        self.scheduler.completed(error, self._fabric.now())

    def _write_ranks(self) -> None:
        self._record.ranks(
            [
                {"rank": rank, "role": self._view.role(rank), "host": hello.host, "pid": hello.pid}
                for rank, hello in sorted(self.scheduler.hellos.items())
                if rank not in self._fabric.lost
            ]
        )

    def _result(self, end: End) -> dict[str, Any]:
        tally = self.scheduler.tally
        return {
            "exit": end.exit,
            "reason": end.reason,
            "metrics": self.scheduler.metrics,
            "seconds": round(time.monotonic() - self._start, 3),
            "training_seconds": round(tally.seconds, 3),
            "examples": tally.examples,
            "examples_per_second": round(tally.examples / tally.seconds, 1) if tally.seconds else 0.0,
            "roles": self._view.counts(),
            "idle": {str(rank): round(share, 4) for rank, share in sorted(tally.idle.items())},
            "traffic": self._traffic(),
            "versions": {
                **{name: version(name) for name in PACKAGES},
                "python": platform.python_version(),
                "mpi": self._mpi,
            },
        }

    def _traffic(self) -> dict[str, Any]:
        """Bytes between nodes: as they would have been without filters, as they were, and what each filter saved."""
        workers, servers = (self.scheduler.tally.sent(self._view.group(role)) for role in ("workers", "servers"))
        fetched = workers.fetched
        names = sorted({*workers.saved, *servers.saved})
        return {
            "workers": {"raw": workers.raw, "sent": workers.sent},
            "servers": {"raw": servers.raw + fetched, "sent": servers.sent + fetched},
            "filters": {name: workers.saved.get(name, 0) + servers.saved.get(name, 0) for name in names},
        }


def results_of(desk: Desk) -> list[Any]:
    """What the workers' programs returned, in order of rank."""
    return [result for _, result in sorted(desk.scheduler.results.items())]
