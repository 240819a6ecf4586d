"""The jobs that schedules of faults are tried on, and what must come of them.

Of each, `tables` are what it has, `run` is a worker's program, `due` what the tables hold in the end, and `steps` what
every copy's clock must know at least: by table and identity, for each position the last push that has changed it.
`unlike` is what the log of a job that has finished says otherwise than it should.
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.kernels.partition import positions
from mpips.table import TableSpec
from tests.recovery.schedules import Schedule
from tests.simulated import libsvm, rest, table

if TYPE_CHECKING:
    from tests.recovery.chaos import Course

TURNS, STEPS = 7, 6
ROWS, FEATURES, PASSES, EVERY = 100, 40, 2, 5
PAUSE = 4e-3  # seconds that a worker does something else
TRAIN = ROWS - ROWS // EVERY
TEAM = 2  # workers that count together
OWN, OWNERS = 8, 4  # rows of the table "counts" that only one worker pushes to, for each of the first few workers

Values = dict[str, np.ndarray[Any, Any]]
Steps = dict[int, dict[int, np.ndarray[Any, Any]]]


@lru_cache
def data_in(folder: Path) -> DataSpec:
    """The data of all jobs, written to a folder."""
    libsvm(folder / "x.libsvm", ROWS, FEATURES, np.random.default_rng(7))
    return DataSpec(format="libsvm", files=("x.libsvm",), batch=4, test=TestSplit(every=EVERY))


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
            its = name == "counts" and int(keys[0]) < OWN * OWNERS
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

    @staticmethod
    def unlike(events: list[dict[str, Any]]) -> list[str]:
        return []


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
        return course.undisturbed(course.schedule.workers, 0)

    @classmethod
    def steps(cls, course: "Course") -> Steps:
        positions = cls.tables(course.schedule)[1].positions
        return {1: {identity: np.full(positions, STEPS) for identity in course.job.view.workers}}

    @staticmethod
    def unlike(events: list[dict[str, Any]]) -> list[str]:
        return []


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
        return course.undisturbed(1, course.schedule.data_servers)

    @classmethod
    def steps(cls, course: "Course") -> Steps:
        return {}

    @staticmethod
    def unlike(events: list[dict[str, Any]]) -> list[str]:
        problems = []
        epochs = [(event["epoch"], event["examples"]) for event in events if event["event"] == "epoch"]
        if epochs != [(epoch + 1, (epoch + 1) * TRAIN) for epoch in range(PASSES)]:
            problems.append(f"epochs and examples: {epochs}")
        rows = [event["rows"] for event in events if event["event"] == "evaluation"]
        if rows != [ROWS - TRAIN] * PASSES:
            problems.append(f"rows evaluated: {rows}")
        return problems


class Teams(Batches):
    """The same counted by teams: each member pushes its part of the features, and gives the others what they check."""

    @staticmethod
    def tables(schedule: Schedule) -> list[TableSpec]:
        return [table("w", rows=FEATURES), table("rows", rows=TEAM)]

    @classmethod
    def run(cls, course: "Course", worker: Any) -> None:
        team = worker.team
        own = range(team.member * FEATURES // TEAM, (team.member + 1) * FEATURES // TEAM)

        def exchange(counts: np.ndarray[Any, Any]) -> None:
            """Each member's own part, to all others; what they give is their part of the same."""
            others = [member for member in range(team.size) if member != team.member]
            for turn in range(2):
                given = counts[own.start : own.stop] + turn
                found = {other: np.empty(FEATURES // TEAM) for other in others}
                key = worker.doing[0].number, worker.doing[1], turn
                swap = team.swap(key, dict.fromkeys(others, given), found)

                def finished(swap: Any = swap) -> bool:
                    team.check()
                    return bool(swap.finished)

                worker.wait_beside(finished, lambda: False)
                for other, part in found.items():
                    first = other * FEATURES // TEAM
                    right = np.array_equal(part, counts[first : first + part.size] + turn)
                    if not right and worker.rank in course.living:  # who is taken for dead may be given anything
                        course.problems.append(f"worker {worker.rank} was given {part} by member {other}")

        class Count:
            def train(self, batch: Any) -> float:
                rest(worker._fabric, PAUSE)
                counts = np.zeros(FEATURES)
                np.add.at(counts, batch.keys[batch.indices].astype(np.int64), 1.0)
                exchange(counts)
                worker.table("rows").push(range(team.member, team.member + 1), [float(len(batch))])
                worker.table("w").push(own, counts[own.start : own.stop])
                return float(len(batch))

            def evaluate(self, batch: Any, histogram: Any) -> float:
                exchange(np.arange(float(FEATURES)))
                histogram[:, 0] += 1
                return 0.0

        worker.train(Count())

    @classmethod
    def due(cls, course: "Course") -> Values:
        return course.undisturbed(TEAM, course.schedule.data_servers)


JOBS: dict[str, Any] = {"program": Programs, "lock-step": LockStep, "batches": Batches, "teams": Teams}
HANDED_OUT = ("batches", "teams")  # jobs whose workers are handed out batches
