"""Schedules of faults: what a simulated job is, and what goes wrong in it, as plain values drawn by a seed."""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.simulated import FAST, PLACES, SLOW

Fault = tuple[Any, ...]  # the name of a method of `Simulation`, or of `chaos.Course`, and its arguments

MIDDLE = (1e-4, 1e-3)
HORIZON = 0.15  # seconds that an undisturbed job takes, about
RECOVERING = 0.12  # … and a recovery
ENDS: dict[str, Callable[..., float]] = {
    "kill": lambda rank, at: at,
    "kill_heir": lambda at: at,
    "scale": lambda at, servers, workers: at,
    "pause": lambda rank, at, seconds: at + seconds,
    "mistake": lambda rank, at, seconds: at + seconds,
    "cut": lambda ranks, at, until: until,
}  # when faults that have a time are over
TWICE = (
    "ToScheduler", "FromScheduler", "RankHeard", "SchedulerHeard", "Snapshot", "Inputs", "Mirrored",
    "Piece", "PieceRead", "Push", "PushReply", "ChangeTaken", "BatchRequest", "BatchReady", "BatchTaken",
)  # fmt: skip


class Schedule(NamedTuple):
    """A job and its faults; its `repr` makes it again.

    Attributes
    ----------
    seed : of the simulation, and of what the job's workers push.
    job : "program", "batches", "lock-step" or "teams"; see `jobs`.
    place : of the ranks on nodes; a name in `PLACES`.
    latency : shortest and longest time of a message, in seconds.
    replaces : whether spares take the places of dead workers to whom batches are handed out.
    saves : whether checkpoints are written, which are cuts.
    faults : in any order.
    """

    seed: int
    job: str
    servers: int
    data_servers: int
    workers: int
    spares: int
    replicas: int
    place: str
    latency: tuple[float, float]
    replaces: bool
    saves: bool
    faults: tuple[Fault, ...]

    @property
    def ranks(self) -> int:
        """Of the job."""
        return 1 + self.servers + self.data_servers + self.workers + self.spares

    @property
    def last(self) -> float:
        """The time when the last fault that has one is over."""
        return max((ENDS[name](*arguments) for name, *arguments in self.faults if name in ENDS), default=0.0)


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(seed)
    job = rng.choices(("program", "batches", "lock-step", "teams"), (5, 3, 2, 2))[0]
    handed_out = job in ("batches", "teams")
    servers = rng.choices((1, 2, 3, 4), (1, 3, 4, 2))[0]
    schedule = Schedule(
        seed=seed,
        job=job,
        servers=servers,
        data_servers=rng.choice((0, 1, 1, 2, 3)) if handed_out else 0,
        workers=rng.choice((2, 4)) if job == "teams" else rng.choice((1, 2, 2, 3)),
        spares=rng.choices((0, 1, 2, 3, 4), (1, 3, 3, 3, 1))[0],
        replicas=rng.choices((0, 1, 2), (1, 6, 3))[0],
        place=rng.choice(list(PLACES)),
        latency=rng.choice((FAST, MIDDLE, SLOW)),
        replaces=rng.random() < 0.5,
        saves=handed_out and rng.random() < 0.15,
        faults=(),
    )
    return schedule._replace(faults=tuple(_faults(rng, schedule)))


def _faults(rng: random.Random, schedule: Schedule) -> Iterator[Fault]:
    ranks, at = list(range(schedule.ranks)), 0.0
    rng.shuffle(ranks)
    for _ in range(rng.choices((0, 1, 2, 3, 4), (1, 5, 5, 3, 2))[0]):
        rank = ranks.pop()
        if at and rng.random() < 0.6:
            at += rng.uniform(0.0, RECOVERING)  # while the last is being recovered from, or together with it
        else:
            at = rng.uniform(0.0, HORIZON)
        kind = rng.choices(
            ("kill", "kill_heir", "kill_at_message", "kill_at_received", "mistake", "pause"), (6, 2, 4, 3, 1, 1)
        )[0]
        if kind == "kill":
            yield kind, rank, at
        elif kind == "kill_heir":
            yield kind, at
        elif kind in ("mistake", "pause"):
            yield kind, rank, at, rng.expovariate(10.0)
        else:
            yield kind, rank, int(10 ** rng.uniform(0.0, 2.6))
        if not ranks:
            break
    while rng.random() < 0.3:
        workers = None
        if schedule.job in ("batches", "teams") and rng.random() < 0.5:
            workers = rng.randint(1, 3) if schedule.job == "batches" else rng.randint(1, 4)
        servers = rng.randint(1, schedule.servers + schedule.spares) if workers is None or rng.random() < 0.5 else None
        yield "scale", rng.uniform(0.0, 2 * HORIZON), servers, workers
    if rng.random() < 0.15:
        yield "delay", rng.uniform(0.0, 0.2), 10 ** rng.uniform(-3, -1.5)
    if rng.random() < 0.2:
        yield "repeat", rng.uniform(0.0, 0.3), TWICE
    if rng.random() < 0.1:
        start = rng.uniform(0.0, HORIZON)
        yield "cut", rng.sample(range(schedule.ranks), rng.randint(1, 2)), start, start + rng.expovariate(10.0)
    if rng.random() < 0.2:
        yield "linger", 0.0, rng.expovariate(20.0)


def simpler(schedule: Schedule) -> Iterator[Schedule]:
    """Schedules that are a little simpler than this one."""
    for i in range(len(schedule.faults)):
        yield schedule._replace(faults=schedule.faults[:i] + schedule.faults[i + 1 :])
    for name, simple in (("place", "one node"), ("latency", FAST), ("saves", False)):
        if getattr(schedule, name) != simple:
            yield schedule._replace(**{name: simple})
