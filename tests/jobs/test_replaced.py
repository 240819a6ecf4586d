"""The flights are learned while ranks of every role are killed at any moment, or stand still: the job finishes, every
row counts once an epoch, and the model is as good as that of an undisturbed job.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mpips.cli.launch import Launcher
from tests.jobs.conftest import Start
from tests.jobs.started import Started, mpips_run

JOB = Path(__file__).parents[2] / "inputs" / "flights-lr.toml"
TRAIN_ROWS = 261_877
PASSES = 20
AUC, NOISE = 0.7915, 0.004  # of an undisturbed job of so many passes, and from run to run
STAGES = ("view", "acknowledged", "whole")
ROLES = ["scheduler", "server", "data server", "worker", "spare"]
STILL = 2.0, 3.0  # seconds
PATIENCE = 1.5
SETTINGS = (
    "checkpoint.folder=run",
    "checkpoint.every=1",
    f"algorithm.passes={PASSES}",
    "algorithm.evaluate_every=0",
    "roles.servers=3",
    "roles.data_servers=2",
)
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def needs_ulfm(launcher: Launcher) -> None:
    if not launcher.ulfm:
        pytest.skip("this MPI has no ULFM: a dead rank takes the job down")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the flights are kept parsed, so that the checkout stays as it is."""
    return f"data.cache={tmp_path_factory.mktemp('flights')}"


@pytest.fixture
def flights(start: Start, cache: str) -> Callable[..., Started]:
    """Start the flights with values set, and wait until they are being learned."""

    def begin(*changes: str) -> Started:
        values = [*SETTINGS, cache, *changes]
        job = start(mpips_run(JOB, *(word for value in values for word in ("--set", value))))
        job.until_training(1)
        return job

    return begin


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Chooses moments and ranks; a failed test shows the seed."""
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")  # noqa: T201
    return random.Random(seed)


def finished(job: Started, lost: int) -> None:
    """The job finishes as if nothing had happened, and says what was lost and made up for."""
    assert job.end(120) == 0, job.said
    result = job.result()
    assert result["exit"] == "finished", job.said
    assert result["examples"] == PASSES * TRAIN_ROWS
    assert sorted(event["epoch"] for event in job.events("epoch")) == list(range(1, PASSES + 1))
    assert result["metrics"]["auc"] == pytest.approx(AUC, abs=NOISE)
    assert "Traceback" not in job.said
    assert len(result["recoveries"]) == lost, result["recoveries"]
    for recovery in result["recoveries"]:
        assert all(recovery[stage] is not None for stage in STAGES), recovery


def choose(job: Started, role: str, chance: random.Random, standby: bool = True) -> int:
    """The process of a rank with a role; without `standby` none that is to follow the scheduler."""
    ranks = [entry for entry in job.ranks() if entry["role"] == role and (standby or not entry["standby"])]
    entry = chance.choice(ranks)
    print(f"epoch {len(job.events('epoch'))}: {role} {entry['rank']}")  # noqa: T201
    return int(entry["pid"])


def until_whole(job: Started, lost: int) -> None:
    """Wait until so many deaths are noticed, and all that was lost is made up for."""
    job.until(
        lambda: sum(event["stage"] == "whole" for event in job.events("recovery")) >= lost, f"{lost} recoveries", 30
    )


def test_one_rank_of_every_role_after_the_other_may_be_killed(
    flights: Callable[..., Started], chance: random.Random
) -> None:
    job = flights("roles.spares=7")
    for lost, role in enumerate(chance.sample(ROLES, len(ROLES)), 1):
        time.sleep(chance.uniform(0.1, 0.8))
        os.kill(choose(job, role, chance), signal.SIGKILL)
        until_whole(job, lost)
    finished(job, len(ROLES))


def test_two_ranks_may_be_killed_at_once(flights: Callable[..., Started], chance: random.Random) -> None:
    """Of two roles; never the scheduler together with its only standby, which nobody could follow."""
    job = flights("roles.spares=5")
    for times in (1, 2):
        time.sleep(chance.uniform(0.1, 0.8))
        for pid in [choose(job, role, chance, standby=False) for role in chance.sample(ROLES, 2)]:
            os.kill(pid, signal.SIGKILL)
        until_whole(job, 2 * times)
    finished(job, 4)


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
    job = flights("roles.spares=2")
    for roles in (["scheduler", "spare"], ["server", "worker"], ["data server"]):
        with still(*(choose(job, role, chance) for role in roles)):
            time.sleep(chance.uniform(*STILL))
        job.until_training(len(job.events("epoch")) + 1)
    finished(job, 0)
    assert not job.events("lost")


def test_whoever_stands_still_for_longer_than_the_patience_is_replaced_and_leaves(
    flights: Callable[..., Started], chance: random.Random
) -> None:
    job = flights("roles.spares=4", f"recovery.patience={PATIENCE}")
    for lost, role in enumerate(chance.sample(["scheduler", "server", "data server"], 3), 1):
        pid = choose(job, role, chance)
        with still(pid):
            until_whole(job, lost)
        job.until(lambda pid=pid: pid not in job.processes(), f"{role} {pid} to leave")  # type: ignore[misc]
    finished(job, 3)
    assert [event.get("silent") for event in job.events("lost")] == [True] * 3
