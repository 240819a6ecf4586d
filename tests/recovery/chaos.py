"""Runs schedules of faults, and sees what must hold whatever goes wrong.

A job (see `jobs`) pushes what is known beforehand, and its workers then wait until nothing is missing any more: until
whoever died is made up for, and every copy is where it should be. Then it is looked at, as a whole; and once more when
it is over.
"""

import contextlib
import io
import json
import math
import shutil
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from mpips.checkpoint import Generation, generations
from mpips.fabric.sim import rank as simulated
from mpips.plan import Plan
from mpips.scheduler import requests
from mpips.views.view import Roles, View
from mpips.worker.worker import Worker
from tests.recovery import invariants
from tests.recovery.jobs import FEATURES, HANDED_OUT, JOBS, PASSES, TEAM, TRAIN, Values, data_in
from tests.recovery.schedules import Schedule, simpler
from tests.simulated import FAST, PLACES, SMALL, SimulatedJob

LIMIT = 40.0  # simulated seconds, many times what a job takes that goes on
SEEN = 0.1  # seconds until the last death is known
LOOKS = 0.02  # seconds between two looks for requests for another size; fewer than in earnest would cost too much time


class Violation(AssertionError):
    """Something that must hold does not."""


class Course:
    """A schedule's job, and what is noted on its way.

    Parameters
    ----------
    schedule : what is run.
    folder : where data and a run folder may be; it can be used again, by one course at a time.

    Attributes
    ----------
    job : what runs.
    problems : what does not hold, in words.
    held : values of the tables, when everything was at rest.
    outcome : "finished", or the reason for which the job had to end: more ranks died than it had others for.
    """

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        self.schedule = schedule
        self.folder = folder
        self.problems: list[str] = []
        self.held: Values = {}
        self.outcome = ""
        self._run = folder / "run"
        self._kind = JOBS[schedule.job]
        self._due = self._kind.due(self) if schedule.faults else {}
        self._arrived: set[int] = set()  # ranks whose programs wait for the rest
        self._restless = "no program has come to its end"
        self._looked = 0.0
        self._rested: float | None = None
        self._gone: dict[int, float] = {}  # when each rank was dead, or taken for dead
        shutil.rmtree(self._run, ignore_errors=True)
        nodes = PLACES[schedule.place](schedule.ranks)
        self.job = SimulatedJob(self._plan(), nodes, schedule.seed, latency=schedule.latency)
        self.simulation = self.job.simulation
        announce = self.simulation.announce

        def note(rank: int) -> None:
            self._gone.setdefault(rank, self.simulation.time)
            announce(rank)

        self.simulation.announce = note  # type: ignore[method-assign]
        own = {"scale": self._scale, "kill_heir": self._kill_heir}
        for name, *arguments in schedule.faults:
            (own.get(name) or getattr(self.simulation, name))(*arguments)

    def _plan(self) -> Plan:
        schedule, kind = self.schedule, self._kind
        data = data_in(self.folder) if schedule.job in HANDED_OUT else None
        return Plan(
            program=self._program,
            tables=lambda features: kind.tables(schedule),
            roles=Roles(
                servers=schedule.servers,
                data_servers=schedule.data_servers,
                workers=schedule.workers,
                spares=schedule.spares,
            ),
            data=data,
            base=self.folder,
            passes=PASSES,
            evaluate_every=1,
            delay=0 if schedule.job == "lock-step" else None,
            run=self._run,
            saves=schedule.saves,
            save_every=0.05 if schedule.saves else 0.0,
            keep=1_000,
            consistency="cut",
            replicas=schedule.replicas,
            team=TEAM if schedule.job == "teams" else 1,
            on_worker_loss="replace" if schedule.replaces or data is None else "redistribute",
            copy_share=1.0,
            memory=SMALL,
            threads=1,
        )

    def _program(self, worker: Worker) -> None:
        used = worker._fabric.space.used
        self._kind.run(self, worker)
        worker.settle()
        self._arrived.add(worker.rank)
        worker.idle(self._is_at_rest)
        space = worker._fabric.space  # what is kept for a rank that may come back has been given back
        if space.used - sum(space._taken[offset] for offset in space._given_back) > used:
            self.problems.append(f"worker {worker.rank} has not given all of its arena back")
        if worker._issued._open:
            self.problems.append(f"worker {worker.rank} has tasks open: {worker._issued._open}")

    def undisturbed(self, workers: int, data_servers: int) -> Values:
        """What the tables of such a job with one server hold in the end when nothing goes wrong."""
        return _undisturbed(self.schedule.job, workers, data_servers, self.folder)

    # --- faults that the simulation does not know -------------------------------------------------------------------

    def _scale(self, at: float, servers: int | None, workers: int | None) -> None:
        def ask() -> None:
            if self._run.exists():
                requests.Asked(self._run, requests.Sizes(servers=servers, workers=workers))

        self.simulation.at(at, ask)

    def _kill_heir(self, at: float) -> None:
        """Have one of those die that have got the role of another."""
        first = self.job.view

        def heirs() -> list[int]:
            view = self.view
            return [rank for rank in self.living if view.role(rank) not in (first.role(rank), "spare")]

        self.simulation.kill_one(heirs, at)

    # --- as it is ---------------------------------------------------------------------------------------------------

    @property
    def living(self) -> list[int]:
        """Ranks that are neither dead nor sent away."""
        return [rank for rank in self.job.ranks if rank not in self._gone]

    @property
    def view(self) -> View:
        """The last view."""
        views = [self.job.ranks[rank].view for rank in self.living]
        return max(views, key=lambda view: view.number, default=self.job.view)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of the log of the run."""
        path = self._run / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _is_at_rest(self) -> bool:
        """Whether nothing will happen any more, as far as anyone can know; then everything is looked at."""
        now = self.simulation.time
        if self._rested is None and now > max(self.schedule.last + SEEN, self._looked + LOOKS):  # all workers ask
            self._looked = now
            self._restless = self._why_restless()
            if not self._restless:
                self._rested = now
                self.problems += invariants.of_copies(self.job, self.view, self.living)
                self.problems += invariants.of_clocks(self.job, self.view, self._kind.steps(self))
                self.held = invariants.values(self.job, self.view)
        return self._rested is not None

    def _why_restless(self) -> str:
        view = self.view
        working = set(view.workers) - self._arrived
        if working:
            return f"workers {sorted(working)} are not at the end of their programs"
        if any(self._run.glob("scale-*.request")) or any(
            b"under way" in path.read_bytes() for path in self._run.glob("scale-*.answer")
        ):
            return "a request for another size is not answered"
        return invariants.restless(self.job, view, self.living, set(self._gone))

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self) -> "Course":
        """Run it to its end.

        Raises
        ------
        Violation
            when something does not hold that must; the text says what, and has the schedule.
        """
        said = io.StringIO()
        try:
            with (
                mock.patch.object(requests, "PAUSE", LOOKS),
                mock.patch.object(simulated, "SHORTEST_SLEEP", LOOKS / 4),
                contextlib.redirect_stderr(said),
            ):
                self.job.run(LIMIT)
            self._look_back()
        except Exception as error:
            notes = "\n".join(getattr(error, "__notes__", ()))
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.problems.append(
                f"{type(error).__name__} at {place.filename}:{place.lineno}: {error}\n{self._restless}\n{notes}"
            )
        if self.problems:
            raise Violation("\n".join([*self.problems, repr(self.schedule), said.getvalue()]))
        return self

    def _look_back(self) -> None:
        """See that everybody has seen the same end, and that what was to be done is done and told."""
        job = self.job
        if not self.living:
            self.outcome = "nobody is left"
            return
        ends = {job.outcomes[rank].exit: job.outcomes[rank].reason for rank in self.living if job.outcomes[rank]}
        if len(ends) != 1:
            self.problems.append(f"the job has ended in more than one way, or in none: {ends}")
            return
        ((exit_, reason),) = ends.items()
        self.outcome = "finished" if exit_ == "finished" else invariants.beyond(reason)
        result = json.loads((self._run / "result.json").read_text())
        if (result["exit"], result["reason"]) != (exit_, reason):
            self.problems.append(f"the result says otherwise: {result['exit']}, {result['reason']}, not {reason}")
        self.problems += invariants.of_events(self.events, self._gone)
        if self.outcome == "finished":
            self._look_at_values()
            return
        self.problems += invariants.of_ends(
            self.outcome, reason, job, self.view, self.living, self._gone, self._patience()
        )

    def _patience(self) -> float:
        """Seconds in which a scheduler that has died is certainly followed."""
        slow = [fault for fault in self.schedule.faults if fault[0] in ("delay", "pause", "mistake", "cut")]
        return math.inf if slow else SEEN + 20 * self.schedule.latency[1]

    def _look_at_values(self) -> None:
        if self._rested is None:
            self.problems.append(f"the job finished before it was at rest: {self._restless}")
            return
        for name, due in self._due.items():
            if not np.array_equal(self.held[name], due):
                at = np.argwhere(self.held[name] != due)[:5].tolist()
                self.problems.append(
                    f'table "{name}" holds {[self.held[name][tuple(i)] for i in at]} at {at}, '
                    f"not {[due[tuple(i)] for i in at]}"
                )
        self.problems += self._kind.unlike(self.events)
        if self.schedule.saves:
            for path in generations(self._run):
                self.problems += invariants.of_cut(path, TRAIN)
            with Generation(generations(self._run)[0]) as generation:
                saved = generation.dense("w", 0, FEATURES)[0]
            if not np.array_equal(saved, self.held["w"]):
                self.problems.append("the last checkpoint holds something else than the tables")


@lru_cache
def _undisturbed(job: str, workers: int, data_servers: int, folder: Path) -> Values:
    schedule = Schedule(0, job, 1, data_servers, workers, 0, 0, "one node", FAST, False, False, ())
    return Course(schedule, folder).run().held


def shrink(schedule: Schedule, folder: Path) -> Schedule:
    """A schedule as simple as may be in which something does not hold either."""
    while True:
        for simple in simpler(schedule):
            try:
                Course(simple, folder).run()
            except Violation:
                schedule = simple
                break
        else:
            return schedule
