"""Thousands of random schedules of faults: whatever goes wrong, what must hold does; see `chaos`.

MPIPS_SEED begins with another, MPIPS_SCHEDULES has more of them; a failure says how to repeat it.
"""

import os
from collections import Counter

import pytest

from tests.recovery.chaos import Course, Violation, shrink
from tests.recovery.schedules import Schedule, draw

SCHEDULES = int(os.environ.get("MPIPS_SCHEDULES", "2000"))
FIRST = int(os.environ.get("MPIPS_SEED", "1000"))
BUNCHES = 10
MOST_BEYOND = 0.5  # of the schedules; more would show little of how jobs go on


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bunch", range(BUNCHES))
def test_whatever_goes_wrong_every_push_counts_once_and_every_copy_is_alike(bunch, tmp_path):
    outcomes = Counter[str]()
    first = FIRST + bunch * (SCHEDULES // BUNCHES)
    for number in range(first, first + SCHEDULES // BUNCHES):
        try:
            outcomes[Course(draw(number), tmp_path).run().outcome] += 1
        except Violation as violation:
            smallest = shrink(draw(number), tmp_path)
            pytest.fail(f"MPIPS_SEED={number} MPIPS_SCHEDULES={BUNCHES}: {violation}\nthe same, smaller:\n{smallest!r}")
    print(dict(outcomes))  # noqa: T201
    assert outcomes["finished"] >= MOST_BEYOND * SCHEDULES // BUNCHES


def test_a_schedule_runs_again_as_it_ran(tmp_path):
    for number in range(FIRST, FIRST + 5):
        schedule = draw(number)
        again = eval(repr(schedule), {"Schedule": Schedule})
        courses = [Course(each, tmp_path).run() for each in (schedule, again)]
        assert len({(course.outcome, course.simulation.messages, course.simulation.time) for course in courses}) == 1
