"""The delay chosen by the system: raised while workers wait for it, kept as long as the objective falls faster. Pure.

What counts is the gain: by how much the objective falls in a second. It is the product of two things that a window of
work shows: work in a second, which grows with the delay until nobody waits, and the fall of the objective by work,
which shrinks as updates get stale. Li et al. 2014, section 3.5, leave the choice open.
"""

import math
from typing import NamedTuple

WAITING = 0.05  # a share of time waited below which a larger delay can't pay
BETTER = 1.03  # a trial must beat what it replaces by this factor
SIGNIFICANT = 3.0  # a change of the objective counts when it is so many times its standard error
LARGEST = 1 << 16
FIRST_PAUSE, LONGEST_PAUSE = 2, 64  # windows from a trial that failed to the next


class Window(NamedTuple):
    """Some work that was done under one delay.

    Attributes
    ----------
    seconds, work : how long it took, and how much it was, in any unit.
    objective, error : its objective, and the standard error of that.
    waited : share of the workers' time that they waited for the delay.
    """

    seconds: float
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
        if self._before is not None:
            self._judge(window, self._before)
            return
        self._windows = [*self._windows[-2:], window]
        if self._pause > 0:
            self._pause -= 1
        elif window.waited > WAITING and self.delay < LARGEST and (len(self._windows) == 3 or not self._falls()):
            self._before = self.delay
            self.delay = 2 * self.delay + 1

    def _judge(self, trial: Window, before: int) -> None:
        """Keep the delay that was tried, or go back to the one before."""
        last = self._windows[-1]
        speed = (trial.work / trial.seconds) / (last.work / last.seconds)
        self._before = None
        if speed * self._progress(trial) > BETTER:
            self._windows = [trial]
            self._next_pause = FIRST_PAUSE
        else:
            self.delay = before
            self._windows = []
            self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, LONGEST_PAUSE)

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
