"""The delay that the system chooses, on workloads made up to have a best one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.scheduler.delay import FIRST_PAUSE, LARGEST, AutoDelay, Window

SPEEDS = st.floats(max_value=1e300) | st.sampled_from([math.inf, math.nan])


class Workload:
    """Workers that wait less the larger the delay, up to `needed`; an objective that falls the less for it.

    Parameters
    ----------
    needed : number of unfinished iterations from which on nobody waits.
    harm : how much less the objective falls for the same work, for each iteration of delay.
    noise : of speeds and waits.
    error : of the objective.
    """

    def __init__(self, rng, needed, harm=0.0, noise=0.0, error=0.0):
        self.rng, self.needed, self.harm, self.noise, self.error = rng, needed, harm, noise, error
        self.fallen = 0.0

    def speed(self, delay):
        return min(1.0, (delay + 1) / self.needed)

    def gain(self, delay):
        return self.speed(delay) / (1.0 + self.harm * delay)

    def best(self, first):
        return max(self.gain((first + 1) * 2**power - 1) for power in range(10))

    def window(self, delay):
        self.fallen += 0.02 / (1.0 + self.harm * delay)
        speed = self.speed(delay) * (1.0 + self.noise * self.rng.uniform(-1.0, 1.0))
        waited = min(1.0, max(0.0, 1.0 - speed))
        objective = 0.4 + 0.3 * math.exp(-self.fallen) + self.error * self.rng.normal()
        return Window(speed, 1.0, objective, self.error, waited)

    def run(self, first, windows, settled):
        """The delays of the windows; from a window on, the fall in a second as a share of that under the best delay."""
        auto, delays, fallen, seconds = AutoDelay(first), [], 0.0, 0.0
        for number in range(windows):
            if number == settled:
                fallen, seconds = self.fallen, 0.0
            delays.append(auto.delay)
            seconds += 1.0 / self.speed(auto.delay)
            auto.add(self.window(auto.delay))
        return delays, (self.fallen - fallen) / 0.02 / seconds / self.best(first)


def window(speed=1.0, objective=0.5, error=0.01, waited=0.5):
    return Window(speed, 1.0, objective, error, waited)


@settings(max_examples=200)
@given(st.integers(1, 100), st.floats(0.0, 2.0), st.sampled_from([0, 1, 3]), st.integers(0, 1000))
def test_the_objective_falls_nearly_as_fast_as_under_the_best_delay(needed, harm, first, seed):
    workload = Workload(np.random.default_rng(seed), needed, harm)
    _, share = workload.run(first, 150, settled=40)
    assert share > 0.9


@settings(max_examples=200)
@given(st.integers(1, 64), st.sampled_from([1, 3]), st.integers(0, 1000))
def test_speeds_and_objectives_that_vary_by_chance_are_no_reason_to_keep_workers_waiting(needed, first, seed):
    workload = Workload(np.random.default_rng(seed), needed, 0.0, noise=0.05, error=0.003)
    _, share = workload.run(first, 100, settled=20)
    assert share > 0.9


def test_a_delay_that_leaves_nobody_waiting_is_reached_in_a_few_windows():
    delays, _ = Workload(np.random.default_rng(1), 16, error=0.003).run(1, 10, settled=0)
    assert delays[:4] == [1, 3, 7, 15]
    assert set(delays[4:]) == {15}


@given(st.lists(st.tuples(st.floats(0.1, 10.0), st.floats(0.0, 10.0), st.floats(0.0, 1.0), st.floats(0.0, 0.03))))
def test_the_delay_is_never_raised_while_nobody_waits(windows):
    auto = AutoDelay(3)
    for speed, objective, error, waited in windows:
        auto.add(window(speed, objective, error, waited))
        assert auto.delay == 3


@pytest.mark.parametrize("trial", [window(speed=0.9), window(objective=0.6), window(speed=3.0, objective=0.9)])
def test_a_trial_that_makes_it_slower_or_the_objective_rise_is_given_up(trial):
    auto = AutoDelay(3)
    auto.add(window())
    assert auto.delay == 7
    auto.add(trial)
    assert auto.delay == 3


@pytest.mark.parametrize(
    ("fall", "kept"), [(0.05, True), (0.015, False)]
)  # of 0.064 that were to be expected, in two thirds of the time
def test_a_faster_trial_is_kept_unless_the_objective_falls_too_little_for_it(fall, kept):
    auto = AutoDelay(0)
    for objective in (0.7, 0.6, 0.52):
        assert auto.delay == 0
        auto.add(window(1.0, objective, 0.0))
    auto.add(window(1.5, 0.52 - fall, 0.0))
    assert auto.delay == (1 if kept else 0)


def test_trials_that_fail_are_repeated_ever_more_rarely():
    auto, trials = AutoDelay(3), []
    for number in range(40 * FIRST_PAUSE):
        auto.add(window())
        if auto.delay == 7:
            trials.append(number)
            auto.add(window(speed=0.8))
            assert auto.delay == 3
    pauses = np.diff(trials)
    assert pauses[0] > FIRST_PAUSE
    assert len(pauses) >= 3
    assert (pauses[1:] > 1.8 * pauses[:-1]).all()


@pytest.mark.parametrize("objective", [math.nan, math.inf])
def test_a_delay_under_which_the_objective_is_no_number_any_more_is_given_up(objective):
    auto = AutoDelay(3)
    auto.add(window())
    auto.add(window(speed=5.0, objective=objective))
    assert auto.delay == 3


@pytest.mark.parametrize("speed", [0.0, math.inf, math.nan])
def test_a_window_without_a_speed_decides_nothing(speed):
    auto = AutoDelay(3)
    auto.add(window(speed=speed))
    assert auto.delay == 3
    auto.add(window())
    assert auto.delay == 7
    auto.add(window(speed=speed))
    assert auto.delay == 7  # still on trial
    auto.add(window(speed=0.5))
    assert auto.delay == 3


@settings(max_examples=200)
@given(st.lists(st.tuples(SPEEDS, st.floats(), st.floats(min_value=0.0), st.floats()), max_size=200))
def test_the_delay_stays_one_of_its_ladder_whatever_the_figures_are(windows):
    auto = AutoDelay(1)
    ladder = {2 ** (power + 1) - 1 for power in range(18)}
    for figures in windows:
        auto.add(window(*figures))
        assert auto.delay in ladder


def test_the_delay_has_an_end():
    auto = AutoDelay(1)
    for number in range(200):
        auto.add(window(speed=1.0 + number, waited=1.0))
    assert LARGEST <= auto.delay <= 2 * LARGEST
