"""Tasks on the side that is asked: begun when those that they come after are done, in order, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.messages import Refused
from mpips.tasks.received import FAILURES_REMEMBERED, Received

ASKED = 7  # a rank


class Sent:
    """A fabric that only keeps what is sent."""

    def __init__(self):
        self.messages = []

    def send(self, dest, message):
        self.messages.append((dest, message))


class Taken:
    """A `Received`, and the times of the tasks that it has begun."""

    def __init__(self):
        self.fabric = Sent()
        self.received = Received(self.fabric)
        self.begun = []

    def take(self, time, after=(), lane=None, source=ASKED, ends=False, part=0, queued=True):
        def run():
            self.begun.append((source, time) if source != ASKED else time)
            if ends:
                self.received.done(source, time)

        self.received.take(source, time, list(after), run, lane, part, queued)

    def refusals(self):
        return {message.time: message.reason for dest, message in self.fabric.messages if dest == ASKED}


def test_a_task_is_begun_when_all_that_it_comes_after_are_done():
    taken = Taken()
    taken.take(1)
    taken.take(2)
    taken.take(3, after=[1, 2])
    taken.received.done(ASKED, 2)
    assert taken.begun == [1, 2]
    taken.received.done(ASKED, 1)
    assert taken.begun == [1, 2, 3]
    taken.take(4, after=[1, 2])  # done long ago
    assert taken.begun == [1, 2, 3, 4]
    assert taken.fabric.messages == []


def test_ranks_count_their_own_times():
    taken = Taken()
    taken.take(1, source=3)
    taken.take(1)
    taken.take(2, after=[1])
    taken.received.done(3, 1)
    assert taken.begun == [(3, 1), 1]
    taken.received.done(ASKED, 1)
    assert taken.begun[-1] == 2


def test_a_failed_task_fails_those_that_come_after_it_and_the_first_failure_is_named():
    taken = Taken()
    for time in (1, 2, 3):
        taken.take(time)
    taken.take(4, after=[1, 2])
    taken.take(5, after=[4])
    taken.take(6, after=[3])
    taken.received.refuse(ASKED, 2, "no fuel")
    taken.received.done(ASKED, 1)
    taken.received.done(ASKED, 3)
    taken.take(7, after=[5])
    taken.take(8, after=[6])
    assert taken.begun == [1, 2, 3, 6]  # 8 waits for 6, which is under way
    assert taken.refusals() == {2: "no fuel"} | dict.fromkeys((4, 5, 7), "it comes after task 2, which failed: no fuel")


def test_a_failure_is_known_to_the_same_rank_only():
    taken = Taken()
    for source in (3, ASKED):
        taken.take(1, source=source)
    taken.received.refuse(ASKED, 1, "no fuel")
    taken.received.done(3, 1)
    taken.take(2, after=[1], source=3)
    assert taken.begun[-1] == (3, 2)


def test_a_task_that_fails_again_and_many_others_do_not_make_the_memory_of_failures_grow():
    taken = Taken()
    for time in range(1, 3 * FAILURES_REMEMBERED):
        for _ in range(2):
            taken.take(time)
            taken.received.refuse(ASKED, time, "no fuel")
    taken.take(time + 1, after=[time])
    assert taken.refusals()[time + 1] == f"it comes after task {time}, which failed: no fuel"
    assert len(taken.received._failed) <= FAILURES_REMEMBERED


@pytest.mark.parametrize("after", [5, 6, 2**62])
def test_a_task_that_comes_after_one_that_was_not_asked_for_is_refused(after):
    taken = Taken()
    taken.take(5, after=[after])
    assert taken.begun == []
    assert taken.fabric.messages == [
        (ASKED, Refused(5, f"it comes after task {after}, which rank {ASKED} has not asked for here"))
    ]


def test_a_task_of_a_lane_waits_for_those_that_came_before_it_in_this_lane_alone():
    taken = Taken()
    taken.take(1)
    taken.take(2, after=[1], lane="a")
    taken.take(3, lane="a")
    taken.take(4, lane="b")
    taken.take(5)
    taken.take(6, after=[1], lane="a")
    assert taken.begun == [1, 4, 5]
    taken.received.done(ASKED, 1)
    assert taken.begun == [1, 4, 5, 2, 3, 6]


def test_a_task_of_a_lane_that_fails_lets_the_others_pass():
    taken = Taken()
    taken.take(1)
    taken.take(2, after=[1], lane="a")
    taken.take(3, lane="a")
    taken.received.refuse(ASKED, 1, "no fuel")
    assert taken.begun == [1, 3]
    assert set(taken.refusals()) == {1, 2}


def test_a_repetition_of_a_task_that_is_under_way_is_left_out_since_that_is_still_to_be_answered():
    taken = Taken()
    taken.take(1)
    taken.take(2, after=[1], lane="a")
    for _ in range(2):
        taken.take(1)
        taken.take(2, after=[1], lane="a")
    taken.received.done(ASKED, 1)
    assert taken.begun == [1, 2]
    taken.received.done(ASKED, 2)
    taken.take(1)  # whoever repeats what was answered is answered again
    assert taken.begun == [1, 2, 1]


def test_what_waits_for_tasks_of_a_subject_is_dropped_with_them_and_can_be_asked_for_again():
    taken = Taken()
    lane = "w", ASKED
    taken.take(1, lane=lane)
    taken.take(2, after=[1], lane=lane)
    taken.take(3, lane=lane)
    taken.take(4, after=[2], lane=lane, queued=False)
    taken.take(5, after=[1], lane=("v", ASKED), queued=False)
    taken.received.leave("w")
    taken.received.done(ASKED, 1)
    assert taken.begun == [1, 5]
    taken.take(2, lane=lane, part=1)
    taken.take(6, after=[2], lane=lane, queued=False)
    assert taken.begun == [1, 5, 2]
    taken.received.done(ASKED, 2, 1)
    assert taken.begun == [1, 5, 2, 6]
    assert set(taken.received._open) == {(ASKED, 5), (ASKED, 6)}


@pytest.mark.parametrize("first", ["new", "old"])
def test_what_comes_after_a_task_waits_for_all_of_its_parts_that_are_not_dropped(first):
    taken = Taken()
    taken.take(1, part=1)
    taken.take(1, part=2)
    taken.take(2, after=[1])
    ends = [lambda: taken.received.drop(ASKED, 1, 1), lambda: taken.received.done(ASKED, 1, 2)]
    for end in ends if first == "old" else reversed(ends):
        assert taken.begun == [1, 1]
        end()
    assert taken.begun == [1, 1, 2]


@given(st.data())
def test_tasks_of_any_graph_are_begun_after_what_they_come_after_and_in_the_order_of_their_lane(data):
    """Some end at once, some when told to, in any order."""
    taken = Taken()
    count = data.draw(st.integers(1, 15), "tasks")
    after, lanes, quick = {}, {}, {}
    ended = []
    for time in range(1, count + 1):
        after[time] = sorted(data.draw(st.sets(st.integers(1, time - 1), max_size=3), "after")) if time > 1 else []
        lanes[time] = data.draw(st.sampled_from([None, "a", "b"]), "lane")
        quick[time] = data.draw(st.booleans(), "ends at once")
        taken.take(time, after[time], lanes[time], ends=quick[time])
        if slow := [other for other in taken.begun if not quick[other] and other not in ended]:
            other = data.draw(st.sampled_from([None, *slow]), "ends now")
            if other is not None:
                ended.append(other)
                taken.received.done(ASKED, other)
    while slow := [other for other in taken.begun if not quick[other] and other not in ended]:
        ended.append(data.draw(st.sampled_from(slow), "ends"))
        taken.received.done(ASKED, ended[-1])
    assert sorted(taken.begun) == list(range(1, count + 1))
    place = {time: at for at, time in enumerate(taken.begun)}
    for time, others in after.items():
        assert all(place[other] < place[time] for other in others)
    for lane in ("a", "b"):
        in_lane = [time for time in taken.begun if lanes[time] == lane]
        assert in_lane == sorted(in_lane)
    assert taken.received._open == {}
