"""Thousands of random schedules of faults: whatever goes wrong, what must hold does; see `chaos`.

MPIPS_SEED begins with another, MPIPS_SCHEDULES has more of them; a failure says how to repeat it.
"""

import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.recovery.chaos import Course, Violation, shrink
from tests.recovery.schedules import Schedule, draw

SCHEDULES = int(os.environ.get("MPIPS_SCHEDULES", "2000"))
FIRST = int(os.environ.get("MPIPS_SEED", "1000"))
BUNCHES = 10
BUNCH = SCHEDULES // BUNCHES
MOST_BEYOND = 0.5  # of the schedules; more would show little of how jobs go on


def course(bunch: int) -> Counter[str]:
    """Run a bunch of schedules: how they went.

    Raises
    ------
    Violation
        for the first in which something does not hold; with the simplest schedule found in which it does not either.
    """
    outcomes = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FIRST + bunch * BUNCH, FIRST + (bunch + 1) * BUNCH):
            try:
                outcomes[Course(draw(number), Path(folder)).run().outcome] += 1
            except Violation as violation:
                smallest = shrink(draw(number), Path(folder))
                again = f"MPIPS_SEED={number} MPIPS_SCHEDULES={BUNCHES}"
                raise Violation(f"{again}: {violation}\nthe same, smaller:\n{smallest!r}") from None
    return outcomes


@pytest.fixture(scope="module")
def bunches() -> Iterator[list]:
    """What comes of each bunch, on as many cores as there are."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        yield [pool.submit(course, bunch) for bunch in range(BUNCHES)]
        pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bunch", range(BUNCHES))
def test_whatever_goes_wrong_every_push_counts_once_and_every_copy_is_alike(bunch, bunches):
    outcomes = bunches[bunch].result()
    print(dict(outcomes))  # noqa: T201
    assert outcomes["finished"] >= MOST_BEYOND * BUNCH


def test_a_schedule_runs_again_as_it_ran(tmp_path):
    for number in range(FIRST, FIRST + 5):
        schedule = draw(number)
        again = eval(repr(schedule), {"Schedule": Schedule})
        courses = [Course(each, tmp_path).run() for each in (schedule, again)]
        assert len({(course.outcome, course.simulation.messages, course.simulation.time) for course in courses}) == 1
