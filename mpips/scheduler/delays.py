"""The delay in force: the plan's, or with ``delay = "auto"`` what windows of the job's own work make of it. Pure."""

import math

from mpips.plan import Plan
from mpips.scheduler.delay import AutoDelay, Window

BATCHES = 16  # of a window, at least
SHORTEST_WINDOW = 5e-3  # seconds


class Delays:
    """Of the main group of a job.

    Parameters
    ----------
    plan : the job.
    workers : how many there are.

    Attributes
    ----------
    delay : the one in force; None: no bound.
    """

    def __init__(self, plan: Plan, workers: int) -> None:
        hands_out = plan.data is not None and not plan.keeps_rows
        self._auto = AutoDelay(2 * workers - 1 if hands_out else 0) if plan.delay == "auto" else None
        self.delay: int | None = None if plan.delay == "auto" else plan.delay
        if self._auto is not None:
            self.delay = self._auto.delay
        self._workers = workers
        self._skip = 0
        self._held = 0
        self._begin_window(0.0)

    def begin(self, now: float) -> None:
        """Training begins."""
        self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._since = self._counted = now
        self._waited = 0.0
        self._batches = self._rows = self._samples = 0
        self._loss = self._squares = 0.0

    def held(self, workers: int, now: float) -> None:
        """From now on so many workers wait for nothing but the delay."""
        self._waited += self._held * (now - self._counted)
        self._held, self._counted = workers, now

    def done(self, batches: int, rows: int, loss: float, now: float) -> int | None:
        """Some batches are done: the loss summed over their rows. The delay from now on."""
        if self._auto is None:
            return self.delay
        if self._skip > 0:  # handed out under the delay before
            self._skip -= batches
            if self._skip <= 0:
                self._begin_window(now)
            return self.delay
        self._samples += 1
        self._batches += batches
        self._rows += rows
        self._loss += loss
        self._squares += loss * loss / max(1, rows)
        seconds = now - self._since
        if self._batches >= max(BATCHES, 2 * (self._auto.delay + 1)) and seconds > SHORTEST_WINDOW and self._rows:
            mean = self._loss / self._rows
            spread = max(0.0, self._squares / self._rows - mean * mean)  # of the means of workloads
            self.held(self._held, now)
            error = math.sqrt(spread / self._samples)
            self._close(Window(seconds, self._rows, mean, error, self._waited / (seconds * self._workers)), now)
        return self.delay

    def reported(self, objective: float, waited: float, now: float) -> bool:
        """A program has reported its objective, as the end of a window; whether the delay is another one now."""
        if self._auto is None or now <= self._since:
            return False
        before = self.delay
        self._close(Window(now - self._since, 1.0, objective, 0.0, waited), now)
        return self.delay != before

    def _close(self, window: Window, now: float) -> None:
        assert self._auto is not None
        before = self._auto.delay
        self._auto.add(window)
        self.delay = self._auto.delay
        self._skip = before + 1 if self.delay != before else 0
        self._begin_window(now)
