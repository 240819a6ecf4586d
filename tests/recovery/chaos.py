"""Runs schedules of faults, and sees what must hold whatever goes wrong.

A job pushes what is known beforehand, and its workers then wait until nothing is missing any more: until whoever died
is made up for, and every copy is where it should be. Then it is looked at, as a whole; and once more when it is over.
"""

import contextlib
import io
import json
import math
import shutil
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from mpips.checkpoint import Generation, generations
from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.fabric import sim
from mpips.kernels.partition import positions
from mpips.plan import Plan
from mpips.scheduler import requests
from mpips.table import TableSpec
from mpips.views.view import Roles, View
from mpips.worker.worker import Worker
from tests.recovery import invariants
from tests.recovery.schedules import Schedule, simpler
from tests.simulated import FAST, PLACES, SMALL, SimulatedJob, libsvm, rest, table

LIMIT = 40.0  # simulated seconds, many times what a job takes that goes on
SEEN = 0.1  # seconds until the last death is known
LOOKS = 0.02  # seconds between two looks for requests for another size; fewer than in earnest would cost too much time
TURNS, STEPS = 7, 6
ROWS, FEATURES, PASSES, EVERY = 100, 40, 2, 5
PAUSE = 4e-3  # seconds that a worker does something else
TRAIN = ROWS - ROWS // EVERY
OWN, OWNERS = 8, 4  # rows of the table "counts" that only one worker pushes to, for each of the first few workers

Values = dict[str, np.ndarray[Any, Any]]
Steps = dict[int, dict[int, np.ndarray[Any, Any]]]


class Violation(AssertionError):
    """Something that must hold does not."""


# --- the jobs: `run` is a worker's program, `due` what the tables hold in the end, and `steps` what every copy's clock
# must know at least: by table and identity, for each position the last push that has changed it


class Programs:
    """Workers push ones to keys and to ranges, some of them their own, which they pull now and then, between pushes,
    and without waiting for any of them.

    What pulls of own rows must give is known, unless another worker has the place: that one's pushes count already.
    """

    @staticmethod
    def tables(schedule: Schedule) -> list[TableSpec]:
        size = max(1, schedule.servers // 4)
        return [
            table("counts", rows=200 * size, width=16),
            table("keys", kind="sparse", rows=300 * size),
            table("state", rows=100 * size, width=8, rule={"name": "adagrad", "alpha": 0.5}),
        ]

    @staticmethod
    def pushes(schedule: Schedule, worker: int) -> Iterator[tuple[str, Any]]:
        """What a worker pushes ones to, and None where it waits and pulls."""
        rng = np.random.default_rng((schedule.seed, worker))
        tables = Programs.tables(schedule)
        for _ in range(TURNS):
            for spec in tables:
                if spec.kind == "sparse":
                    yield spec.name, np.unique(rng.integers(0, spec.rows, 6)).astype(np.uint64)
                else:
                    lo = int(rng.integers(OWNERS * OWN, spec.rows - 40))
                    yield spec.name, range(lo, lo + int(rng.integers(1, 40)))
                    yield spec.name, np.unique(rng.integers(OWNERS * OWN, spec.rows, 5)).astype(np.uint64)
            if worker < OWNERS:
                yield "counts", np.unique(rng.integers(worker * OWN, (worker + 1) * OWN, 3)).astype(np.uint64)
                if rng.random() < 0.3:
                    yield "counts", None

    @classmethod
    def run(cls, course: "Course", worker: Any) -> None:
        own, due = range(worker.index * OWN, (worker.index + 1) * OWN), np.zeros(OWN)
        before: list[Any] = []  # what the next push or pull of own rows comes after
        pulls = []
        for name, keys in cls.pushes(course.schedule, worker.index):
            pushed = worker.table(name)
            if keys is None:
                before = [pushed.pull(own, after=before)]
                pulls.append((before[0], due.copy()))
                continue
            its = name == "counts" and int(keys[0]) in own
            task = pushed.push(keys, np.ones((len(keys), pushed.spec.width)), after=before if its else [])
            if its:
                before = [task]
                due[keys.astype(np.int64) - own.start] += 1
            rest(worker._fabric, PAUSE)
        for pull, known in pulls:
            found = pull.wait()
            first = worker.rank == course.job.view.workers[worker.index] and worker.rank in course.living
            if (found < known[:, None]).any() or (first and (found != known[:, None]).any()):
                course.problems.append(f"worker {worker.index} pulled {found[:, 0]} of its own rows, not {known}")

    @classmethod
    def due(cls, course: "Course") -> Values:
        tables = cls.tables(course.schedule)
        found = {spec.name: np.zeros((spec.rows, spec.width)) for spec in tables if spec.rule["name"] == "add"}
        for worker in range(course.schedule.workers):
            for name, keys in cls.pushes(course.schedule, worker):
                if name in found and keys is not None:
                    found[name][np.asarray(keys, np.int64)] += 1
        return found

    @classmethod
    def steps(cls, course: "Course") -> Steps:
        found: Steps = {}
        tables = {spec.name: (number, spec) for number, spec in enumerate(cls.tables(course.schedule))}
        for worker in range(course.schedule.workers):
            identity, made = course.job.view.workers[worker], Counter[str]()
            for name, keys in cls.pushes(course.schedule, worker):
                if keys is None:
                    continue
                made[name] += 1
                number, spec = tables[name]
                steps = found.setdefault(number, {}).setdefault(identity, np.zeros(spec.positions, np.int64))
                steps[positions(np.array(keys, np.uint64), spec.kind == "dense", spec.shard_bits)] = made[name]
        return found


class LockStep:
    """Workers pull, and push what they have pulled and a little noise, summed in lock-step: whatever goes wrong, the
    values are those of the undisturbed run, to the bit.
    """

    @staticmethod
    def tables(schedule: Schedule) -> list[TableSpec]:
        rule = {"name": "adagrad", "alpha": 0.1}
        return [
            table("w", rows=150, width=16, rule=rule, aggregate=True),
            table("v", kind="sparse", rows=300, rule=rule, aggregate=True),
        ]

    @classmethod
    def run(cls, course: "Course", worker: Any) -> None:
        keys = np.arange(0, 300, 7, dtype=np.uint64)
        for step in range(STEPS):
            rng = np.random.default_rng((step, worker.index))
            rows = worker.table("w").pull(range(10, 140)).wait()
            worker.table("w").push(range(10, 140), rows + rng.normal(size=rows.shape))
            rest(worker._fabric, PAUSE)
            mine = keys[rng.random(keys.size) < 0.5]
            pulled = worker.table("v").pull(mine).wait()
            worker.table("v").push(mine, pulled + rng.normal(size=pulled.shape))
            rest(worker._fabric, PAUSE)

    @classmethod
    def due(cls, course: "Course") -> Values:
        return undisturbed(course.schedule.job, course.schedule.workers, 0, course.folder)

    @classmethod
    def steps(cls, course: "Course") -> Steps:
        positions = cls.tables(course.schedule)[1].positions
        return {1: {identity: np.full(positions, STEPS) for identity in course.job.view.workers}}


class Batches:
    """Workers count the rows that they are handed out, and how often each feature occurs in them."""

    @staticmethod
    def tables(schedule: Schedule) -> list[TableSpec]:
        return [table("w", rows=FEATURES), table("rows", rows=1)]

    @classmethod
    def run(cls, course: "Course", worker: Any) -> None:
        class Count:
            def train(self, batch: Any) -> float:
                rest(worker._fabric, PAUSE)
                worker.table("rows").push([0], [float(len(batch))])
                occurrences = np.bincount(batch.indices, minlength=batch.keys.size)
                worker.table("w").push(batch.keys, occurrences.astype(float))
                return float(len(batch))

            def evaluate(self, batch: Any, histogram: Any) -> float:
                histogram[:, 0] += 1
                return 0.0

        worker.train(Count())

    @classmethod
    def due(cls, course: "Course") -> Values:
        return undisturbed(course.schedule.job, 1, course.schedule.data_servers, course.folder)

    @classmethod
    def steps(cls, course: "Course") -> Steps:
        return {}


JOBS: dict[str, Any] = {"program": Programs, "lock-step": LockStep, "batches": Batches}


@lru_cache
def undisturbed(job: str, workers: int, data_servers: int, folder: Path) -> Values:
    """What the tables of a job hold in the end when nothing goes wrong."""
    schedule = Schedule(0, job, 1, data_servers, workers, 0, 0, "one node", FAST, False, False, ())
    return Course(schedule, folder).run().held


@lru_cache
def data_in(folder: Path) -> DataSpec:
    """The data of all jobs, written to a folder."""
    libsvm(folder / "x.libsvm", ROWS, FEATURES, np.random.default_rng(7))
    return DataSpec(format="libsvm", files=("x.libsvm",), batch=4, test=TestSplit(every=EVERY))


# --- a course -------------------------------------------------------------------------------------------------------


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
        announce = self.simulation._announce

        def note(rank: int) -> None:
            self._gone.setdefault(rank, self.simulation.time)
            announce(rank)

        self.simulation._announce = note  # type: ignore[method-assign]
        own = {"scale": self._scale, "kill_heir": self._kill_heir}
        for name, *arguments in schedule.faults:
            (own.get(name) or getattr(self.simulation, name))(*arguments)

    def _plan(self) -> Plan:
        schedule, kind = self.schedule, self._kind
        data = data_in(self.folder) if schedule.job == "batches" else None
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
            save_every=0.1 if schedule.saves else 0.0,
            replicas=schedule.replicas,
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

    # --- faults that the simulation does not know -------------------------------------------------------------------

    def _scale(self, at: float, servers: int | None, workers: int | None) -> None:
        def ask() -> None:
            if self._run.exists():
                requests.Asked(self._run, requests.Sizes(servers=servers, workers=workers))

        self.simulation._at(at, ask)

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
                mock.patch.object(sim, "SHORTEST_SLEEP", LOOKS / 4),
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
        if self.schedule.job == "batches":
            epochs = [(event["epoch"], event["examples"]) for event in self.events if event["event"] == "epoch"]
            if epochs != [(epoch + 1, (epoch + 1) * TRAIN) for epoch in range(PASSES)]:
                self.problems.append(f"epochs and examples: {epochs}")
            rows = [event["rows"] for event in self.events if event["event"] == "evaluation"]
            if rows != [ROWS - TRAIN] * PASSES:
                self.problems.append(f"rows evaluated: {rows}")
        if self.schedule.saves:
            with Generation(generations(self._run)[0]) as generation:
                generation.verify()
                saved = generation.dense("w", 0, FEATURES)[0]
            if not np.array_equal(saved, self.held["w"]):
                self.problems.append("the last checkpoint holds something else than the tables")


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
