"""The range vector clock against one that keeps a step for every worker and position."""

from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.server.clock import ClockError, RangeClock

SIZE = 12
WORKERS = (3, 5, 1)
RANGE = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).filter(lambda ends: ends[0] != ends[1]).map(sorted)
ADVANCE = st.tuples(st.sampled_from(WORKERS), RANGE, st.integers(1, 5))
ADVANCES = st.lists(ADVANCE, max_size=25)


class Naive:
    """One step for every worker and position."""

    def __init__(self):
        self.steps = {(worker, at): 0 for worker in WORKERS for at in range(SIZE)}

    def advance(self, worker, lo, hi, step):
        for at in range(lo, hi):
            self.steps[worker, at] = max(self.steps[worker, at], step)

    def runs(self, worker, value, lo=0, hi=SIZE):
        """Positions joined by what `value` makes of their steps: [(lo, hi, value)]."""
        runs = []
        for made, group in groupby(range(lo, hi), lambda at: value(self.steps[worker, at])):
            positions = list(group)
            runs.append((positions[0], positions[-1] + 1, made))
        return runs

    def entries(self):
        return [
            (worker, *run) for worker in sorted(WORKERS) for run in self.runs(worker, lambda step: step) if run[2] > 0
        ]


def both(advances):
    """A clock and the naive one after the same pushes."""
    clock, naive = RangeClock(SIZE), Naive()
    for worker, (lo, hi), step in advances:
        clock.advance(worker, lo, hi, step)
        naive.advance(worker, lo, hi, step)
    return clock, naive


@given(ADVANCES, RANGE, st.integers(1, 6))
def test_a_range_is_at_its_least_step_and_fresh_where_it_is_below(advances, ends, step):
    clock, naive = both(advances)
    lo, hi = ends
    for worker in WORKERS:
        assert clock.time(worker, lo, hi) == min(naive.steps[worker, at] for at in range(lo, hi))
        below = [(a, b) for a, b, fresh in naive.runs(worker, lambda known: known < step, lo, hi) if fresh]
        assert clock.fresh(worker, lo, hi, step) == below
    for some in (WORKERS, WORKERS[:1], ()):
        expected = all(naive.steps[worker, at] >= step for worker in some for at in range(lo, hi))
        assert clock.complete(some, lo, hi, step) == expected


@settings(max_examples=200)
@given(ADVANCES)
def test_as_many_ranges_are_kept_as_there_are_different_neighbours(advances):
    clock, naive = both(advances)
    assert clock.entries() == naive.entries()
    pushed = {worker for worker, *_ in advances}
    for worker in WORKERS:
        needed = len(naive.runs(worker, lambda step: step)) if worker in pushed else 0
        assert clock.ranges(worker) == needed


@given(ADVANCES)
def test_entries_make_the_same_clock_again(advances):
    clock, again = both(advances)[0], RangeClock(SIZE)
    for entry in reversed(clock.entries()):
        again.advance(*entry)
    assert again.entries() == clock.entries()


@given(ADVANCES, ADVANCES, RANGE)
def test_a_part_handed_over_is_known_there_and_nothing_else_of_it(old, new, ends):
    clock, naive = both(new)
    giver, given = both(old)
    lo, hi = ends
    before = giver.entries()
    clock.assign(lo, hi, giver.entries(lo, hi))
    for (worker, at), step in given.steps.items():
        if lo <= at < hi:
            naive.steps[worker, at] = step
    for worker, at in list(naive.steps):
        if lo <= at < hi and (worker, at) not in given.steps:
            del naive.steps[worker, at]
    assert clock.entries() == naive.entries()
    assert giver.entries() == before


@given(blocks=st.integers(1, 40), rounds=st.integers(1, 4))
def test_blocks_pushed_in_turn_keep_a_range_each_and_become_one_when_equal(blocks, rounds):
    clock = RangeClock(10 * blocks)
    step = 0
    for _ in range(rounds):
        for block in range(blocks):
            step += 1
            clock.advance(7, 10 * block, 10 * block + 10, step)
            assert clock.ranges(7) <= blocks + 1
    assert clock.ranges(7) == blocks
    for block in range(blocks):
        clock.advance(7, 10 * block, 10 * block + 10, step)
    assert clock.ranges(7) == 1
    assert clock.entries() == [(7, 0, 10 * blocks, step)]


def test_a_repetition_and_an_older_push_change_nothing():
    clock = RangeClock(100)
    clock.advance(1, 0, 100, 4)
    clock.advance(1, 20, 30, 6)
    before = clock.entries()
    clock.advance(1, 0, 100, 3)
    clock.advance(1, 25, 28, 6)
    assert clock.entries() == before == [(1, 0, 20, 4), (1, 20, 30, 6), (1, 30, 100, 4)]
    assert clock.fresh(1, 22, 28, 6) == []


def test_a_forgetful_clock_takes_every_push_again():
    clock = RangeClock(100)
    clock.advance(1, 0, 100, 4)
    clock.forget()
    assert clock.entries() == []
    assert clock.fresh(1, 0, 100, 1) == [(0, 100)]


def test_a_million_positions_cost_what_their_ranges_cost():
    clock = RangeClock(1 << 50)
    clock.advance(1, 1 << 20, 1 << 40, 9)
    assert clock.ranges(1) == 3
    assert clock.time(1, 1 << 30, (1 << 30) + 5) == 9
    assert clock.time(1, 0, 1 << 50) == 0


@pytest.mark.parametrize(("lo", "hi"), [(-1, 5), (5, 101), (5, 5), (6, 5), (100, 101)])
@pytest.mark.parametrize("pushes", [0, 1, 2])
def test_a_range_that_the_table_does_not_have_is_refused(lo, hi, pushes):
    clock = RangeClock(100)
    for step in range(1, pushes + 1):
        clock.advance(1, 0, 100 // step, step)
    for use in (
        lambda: clock.time(1, lo, hi),
        lambda: clock.fresh(1, lo, hi, 9),
        lambda: clock.advance(1, lo, hi, 9),
        lambda: clock.complete([1], lo, hi, 9),
        lambda: clock.entries(lo, hi),
        lambda: clock.assign(lo, hi, []),
    ):
        with pytest.raises(ClockError, match=rf"range \[{lo}, {hi}\) is empty or not within .* \[0, 100\)"):
            use()
