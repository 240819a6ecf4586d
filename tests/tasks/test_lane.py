"""A lane: whatever may come when, things are done in the order in which they were added."""

from hypothesis import given
from hypothesis import strategies as st

from mpips.tasks.lane import Lane


@given(st.integers(1, 12).flatmap(lambda n: st.permutations(range(n))))
def test_turns_are_taken_in_order_and_each_as_soon_as_it_may(arrival):
    lane, done, may = Lane(), [], set()
    turns = [lane.add(lambda number=number: done.append(number)) for number in range(len(arrival))]
    for number in arrival:
        turns[number].come()
        may.add(number)
        first_missing = next((other for other in range(len(arrival)) if other not in may), len(arrival))
        assert done == list(range(first_missing))
    assert not lane.queue
    assert not lane.ready


def test_a_turn_may_add_another_which_is_last():
    lane, done = Lane(), []

    def first():
        done.append("first")
        lane.add(lambda: done.append("added")).come()

    turn = lane.add(first)
    lane.add(lambda: done.append("second")).come()
    turn.come()
    assert done == ["first", "second", "added"]


def test_a_turn_knows_whose_it_is():
    lane = Lane()
    turn = lane.add(lambda: None, "a task")
    assert lane.queue[-1] is turn
    assert turn.owner == "a task"
