"""The delay chosen by the system: raised while workers wait for it, kept as long as the objective falls faster. Pure.

What counts is the gain: by how much the objective falls in a second. It is the product of two things that a window of
work shows: work in a second, which grows with the delay until nobody waits, and the fall of the objective by work,
which shrinks as updates get stale. Li et al. 2014, section 3.5, leave the choice open.

A trial that fails costs a window of work, and is repeated ever more rarely. One that is wrongly given up costs more,
as the delay is then too small for a while: what noise may have done is no reason to go back.
"""

import math
from statistics import fmean
from typing import NamedTuple

WAITING = 0.03  # a share of time waited below which a larger delay can't pay
BETTER = 1.02  # a trial must beat what it replaces by this factor
SIGNIFICANT = 3.0  # a change of the objective counts when it is so many times its standard error
LARGEST = 1 << 16
FIRST_PAUSE, LONGEST_PAUSE = 8, 256  # windows from a trial that failed to the next


class Window(NamedTuple):
    """Some work that was done under one delay.

    Attributes
    ----------
    speed : of the work, in any unit; not above 0: unknown.
    work : how much it was, in any unit.
    objective, error : its objective, and the standard error of that.
    waited : share of the workers' time that they waited for the delay.
    """

    speed: float
    work: float
    objective: float
    error: float
    waited: float


class AutoDelay:
    """Takes windows in, one after the other.

    Parameters
    ----------
    delay : the first.

    Attributes
    ----------
    delay : what the next window should be done under.
    """

    def __init__(self, delay: int) -> None:
        self.delay = delay
        self._before: int | None = None  # the delay that the one on trial would replace
        self._windows: list[Window] = []  # the last three under the delay in force
        self._pause = 0
        self._next_pause = FIRST_PAUSE

    def add(self, window: Window) -> None:
        """Take notice of a window, and choose the delay for the next."""
        if not 0.0 < window.speed < math.inf:
            return
        if self._before is not None:
            better, before, self._before = self._is_better(window), self._before, None
            self._windows = []
            if not better:
                self.delay = before
                self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, LONGEST_PAUSE)
                return
            self._next_pause = FIRST_PAUSE
        self._windows = [*self._windows[-2:], window]
        if self._pause > 0:
            self._pause -= 1
        elif window.waited > WAITING and self.delay < LARGEST and (len(self._windows) == 3 or not self._falls()):
            self._before = self.delay
            self.delay = 2 * self.delay + 1

    def _is_better(self, trial: Window) -> bool:
        """Whether the objective falls faster under the delay on trial."""
        speed = trial.speed / fmean(window.speed for window in self._windows)
        return speed * self._progress(trial) > BETTER

    def _falls(self) -> bool:
        """Whether the objective has moved by more than noise in the last window; unknown counts as yes."""
        if len(self._windows) < 2:
            return self._windows[-1].error == 0.0
        last, window = self._windows[-2:]
        return abs(last.objective - window.objective) > SIGNIFICANT * math.hypot(last.error, window.error)

    def _progress(self, trial: Window) -> float:
        """By what factor the objective fell more for the same work than it would have under the delay before, were its
        fall to go on slowing down as it did; 1 where noise hides it.
        """
        if not math.isfinite(trial.objective):
            return 0.0
        last = self._windows[-1]
        error = SIGNIFICANT * math.hypot(last.error, trial.error)
        fall = last.objective - trial.objective
        if len(self._windows) < 3 or not self._falls():
            return 0.0 if fall < -error else 1.0
        first, second, third = (window.objective for window in self._windows)
        slowing = min(1.0, max(0.0, (second - third) / (first - second))) if first > second else 1.0
        expected = (second - third) * slowing * trial.work / last.work
        if expected <= 0.0 or abs(fall - expected) <= error:
            return 0.0 if fall < -error else 1.0
        return max(0.0, fall) / expected
