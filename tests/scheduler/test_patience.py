"""Who is silent for too long is named; who only seems so, since the listener itself stood still, is not."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.scheduler.patience import GRACE, SIGNS, Patience, watched_by
from mpips.views.view import Roles, assign

LIMIT = 1.0
LOOK = LIMIT / SIGNS


def looks(patience, watched, times, alive=()):
    """Look at these times; `alive` speak shortly before. What was named each time."""
    named = []
    for time in times:
        for rank in alive:
            patience.heard(rank, time - LOOK / 2)
        named.append(patience.silent(watched, time))
    return named


def every(start, end):
    return [start + LOOK * i for i in range(round((end - start) / LOOK))]


@pytest.fixture
def patience():
    """Has heard of ranks 1 and 2 at the time 0."""
    patience = Patience(LIMIT)
    patience.silent([1, 2], 0.0)
    for rank in (1, 2):
        patience.heard(rank, 0.0)
    return patience


def test_who_falls_silent_is_named_once_the_limit_is_over_and_again_after_as_long(patience):
    times = every(0.0, 3.0)
    named = looks(patience, [1, 2], times, alive=[2])
    first, second = [time for time, found in zip(times, named, strict=True) if found]
    assert LIMIT < first <= LIMIT + LOOK
    assert LIMIT < second - first <= LIMIT + LOOK
    assert all(found in ([], [1]) for found in named)


def test_who_speaks_is_never_named(patience):
    assert not any(looks(patience, [1, 2], every(0.0, 20.0), alive=[1, 2]))


def test_who_has_just_got_its_role_has_more_time(patience):
    times = every(0.0, 2 * GRACE)
    named = looks(patience, [1, 2, 3], times, alive=[1, 2])
    first = next(time for time, found in zip(times, named, strict=True) if found)
    assert GRACE * LIMIT < first <= GRACE * LIMIT + LOOK


def test_who_follows_another_listener_knows_of_no_new_roles(patience):
    times = every(0.0, 5.0)
    named = looks(patience, [3, 4], times, alive=[4])
    first = next(time for time, found in zip(times, named, strict=True) if found)
    assert LIMIT < first <= LIMIT + LOOK


def test_who_is_not_watched_any_more_is_forgotten(patience):
    looks(patience, [2], every(0.0, 5.0), alive=[2])
    assert patience.silent([1, 2], 5.0) == []


@given(pause=st.floats(0.0, 100.0), more=st.integers(0, 2))
def test_who_stood_still_itself_takes_nobody_for_silent(pause, more):
    """Also not when it looks once more before it has read what the others have said."""
    patience = Patience(LIMIT)
    patience.silent([1], 0.0)
    patience.heard(1, 0.0)
    assert patience.silent([1], LOOK) == []
    assert looks(patience, [1], [LOOK + pause + i * LOOK / 4 for i in range(more + 1)]) == [[]] * (more + 1)


def test_servers_data_servers_and_standbys_speak_to_the_scheduler_and_that_to_its_standbys():
    view = assign([0] * 8, Roles(servers=2, data_servers=1, workers=2, spares=2))
    view = msgspec.structs.replace(view, standbys=[7])
    assert watched_by(view, 0) == sorted([*view.servers, *view.parts, 7])
    assert watched_by(view, 7) == [0]
    assert watched_by(view, view.servers[0]) == watched_by(view, view.workers[0]) == []
    assert view.servers[0] not in watched_by(msgspec.structs.replace(view, lost=[view.servers[0]]), 0)
