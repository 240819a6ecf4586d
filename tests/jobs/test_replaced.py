"""The flights are learned while ranks of every role are killed at any moment, or stand still: the job goes on, every
row counts once an epoch, and the model is as good as that of an undisturbed job.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from mpips.checkpoint import Generation, generations
from tests.jobs.conftest import FOREVER, Start, options
from tests.jobs.started import Started, mpips_run

JOB = Path(__file__).parents[2] / "inputs" / "flights-lr.toml"
TRAIN_ROWS = 261_877
# of an undisturbed job, by its passes; how many there are when a test stops it depends on the machine
AUC = {1: 0.7863, 2: 0.7932, 3: 0.7958, 6: 0.7970, 12: 0.7954, 24: 0.7915, 48: 0.7869, 96: 0.7821, 192: 0.7780}
NOISE = 0.004
STAGES = ("view", "acknowledged", "whole")
ROLES = ["scheduler", "server", "data server", "worker", "spare"]
STILL = 2.0, 3.0  # seconds
PATIENCE = 1.5
SETTINGS = (
    "checkpoint.folder=run",
    "checkpoint.every=1",
    "algorithm.evaluate_every=0",
    "roles.data_servers=2",
)
pytestmark = [pytest.mark.timeout(300), pytest.mark.replacement]


@pytest.fixture
def flights(start: Start, flights_cache: str) -> Callable[..., Started]:
    """Start the flights with values set."""

    def begin(*changes: str) -> Started:
        return start(mpips_run(JOB, *options((*SETTINGS, flights_cache, *changes))))

    return begin


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Chooses moments and ranks; a failed test shows the seed."""
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")  # noqa: T201
    return random.Random(seed)


def as_if_nothing_had_happened(job: Started, passes: int, examples: int) -> None:
    """The job finishes; so many examples make up these passes, and the model is as good as after any such passes."""
    assert job.end(120) == 0, job.said
    result = job.result()
    assert result["exit"] == "finished", job.said
    assert result["examples"] == examples
    expected = float(np.interp(passes, list(AUC), list(AUC.values())))
    assert result["metrics"]["auc"] == pytest.approx(expected, abs=NOISE), f"after {passes} passes"
    assert "Traceback" not in job.said


def stops_and_goes_on(job: Started, lost: int, flights: Callable[..., Started]) -> None:
    """What was lost was made up for, the job stops when it is told to, and another finishes its passes."""
    job.process.send_signal(signal.SIGINT)
    assert job.end() == 130, job.said
    result = job.result()
    assert "Traceback" not in job.said
    assert len(result["recoveries"]) == lost, result["recoveries"]
    for recovery in result["recoveries"]:
        assert all(recovery[stage] is not None for stage in STAGES), recovery
    with Generation(generations(job.run)[0]) as generation:
        generation.verify(deep=True)
        done = generation.progress
    assert sorted(event["epoch"] for event in job.events("epoch")) == list(range(1, done["epochs"] + 1))
    assert done["examples"] == result["examples"]
    passes = done["epochs"] + 2  # of two epochs some batches may be done
    again = flights(f"algorithm.passes={passes}", "--resume")
    as_if_nothing_had_happened(again, passes, passes * TRAIN_ROWS - done["examples"])


def choose(job: Started, role: str, chance: random.Random, standby: bool = True) -> int:
    """The process of a rank with a role; without `standby` none that is to follow the scheduler."""
    ranks = [entry for entry in job.ranks() if entry["role"] == role and (standby or not entry["standby"])]
    entry = chance.choice(ranks)
    print(f"epoch {len(job.events('epoch'))}: {role} {entry['rank']}")  # noqa: T201
    return int(entry["pid"])


def begun(job: Started) -> None:
    """Wait until an epoch is done; that many ranks take long to start on a busy machine, and the flights to be read."""
    job.until(lambda: job.events("epoch"), "epoch 1", 110)


def until_whole(job: Started, lost: int) -> None:
    """Wait until so many deaths are noticed, and all that was lost is made up for."""
    job.until(
        lambda: sum(event["stage"] == "whole" for event in job.events("recovery")) >= lost, f"{lost} recoveries", 30
    )


def test_ranks_of_every_role_may_be_killed_one_after_the_other_and_several_at_once(
    flights: Callable[..., Started], chance: random.Random
) -> None:
    """Never the scheduler together with its only standby, which nobody could follow. It may be a server, too, when a
    standby had become one before: then two servers die at once.
    """
    several = chance.sample(ROLES, chance.choice([2, 3]))
    deaths = [*([role] for role in ROLES), several]
    chance.shuffle(deaths)
    job = flights(FOREVER, "roles.servers=3", f"roles.spares={len(ROLES) + len(several)}", "recovery.replicas=2")
    begun(job)
    lost = 0
    for roles in deaths:
        time.sleep(chance.uniform(0.1, 0.8))
        for pid in [choose(job, role, chance, standby=len(roles) == 1) for role in roles]:
            os.kill(pid, signal.SIGKILL)
        lost += len(roles)
        until_whole(job, lost)
    stops_and_goes_on(job, lost, flights)


@contextmanager
def still(*pids: int) -> Iterator[None]:
    """Processes stand still for a while."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_whoever_stands_still_for_a_while_is_waited_for(flights: Callable[..., Started], chance: random.Random) -> None:
    passes = 8
    job = flights(f"algorithm.passes={passes}", "roles.servers=3", "roles.spares=1")
    begun(job)
    for roles in (["scheduler", "spare"], ["server", "worker", "data server"]):
        job.until_training(len(job.events("epoch")) + 1)
        with still(*(choose(job, role, chance) for role in roles)):
            time.sleep(chance.uniform(*STILL))
    as_if_nothing_had_happened(job, passes, passes * TRAIN_ROWS)
    assert sorted(event["epoch"] for event in job.events("epoch")) == list(range(1, passes + 1))
    assert not job.events("lost")
    assert job.result()["recoveries"] == []


def test_whoever_stands_still_for_longer_than_the_patience_is_replaced_and_leaves(
    flights: Callable[..., Started], chance: random.Random
) -> None:
    job = flights(FOREVER, "roles.servers=2", "roles.spares=4", f"recovery.patience={PATIENCE}")
    begun(job)
    for lost, role in enumerate(chance.sample(["scheduler", "server", "data server"], 3), 1):
        pid = choose(job, role, chance)
        with still(pid):
            until_whole(job, lost)
        job.until(lambda pid=pid: pid not in job.processes(), f"{role} {pid} to leave")  # type: ignore[misc]
    silent = [event.get("silent") for event in job.events("lost")]
    stops_and_goes_on(job, 3, flights)
    assert silent == [True] * 3
