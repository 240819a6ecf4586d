"""The delay in force: the plan's, or with ``delay = "auto"`` what windows of the job's own work make of it. Pure."""

import math

from mpips.plan import Plan
from mpips.scheduler.delay import AutoDelay, Window

BATCHES = 16  # of a window, at least
SHORTEST_WINDOW = 5e-3  # seconds
MOST_WAITED = 0.99  # share of the time: whoever has done something has not waited all of it


class Delays:
    """Of the main group of a job.

    Parameters
    ----------
    plan : the job.
    workers : how many there are.

    Attributes
    ----------
    delay : the one in force; None: no bound.
    workers : how many there are now.
    """

    def __init__(self, plan: Plan, workers: int) -> None:
        hands_out = plan.data is not None and not plan.keeps_rows
        self._auto = AutoDelay(2 * workers - 1 if hands_out else 0) if plan.delay == "auto" else None
        self.delay: int | None = None if plan.delay == "auto" else plan.delay
        if self._auto is not None:
            self.delay = self._auto.delay
        self.workers = workers
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Training begins, or goes on after an evaluation: the first batches, until all workers are at it, count for
        nothing.
        """
        self._skip = self._auto.delay + 1 if self._auto is not None else 0
        self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._since = now
        self._waited = 0.0
        self._batches = self._rows = self._samples = 0
        self._loss = self._squares = 0.0

    def done(self, batches: int, rows: int, loss: float, waited: float, now: float) -> int | None:
        """A worker has done some batches: their rows, the loss summed over these, and the seconds that it had waited
        for work. The delay from now on.
        """
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
        self._waited += waited
        seconds = now - self._since
        if self._batches >= max(BATCHES, 2 * (self._auto.delay + 1)) and seconds > SHORTEST_WINDOW and self._rows:
            mean = self._loss / self._rows
            spread = max(0.0, self._squares / self._rows - mean * mean)  # of the means of workloads
            before = self._auto.delay
            self._close(self._rows, mean, math.sqrt(spread / self._samples), self._waited / (seconds * self.workers))
            self._skip = before + 1 if self.delay != before else 0
            self._begin_window(now)
        return self.delay

    def reported(self, objective: float, waited: float) -> bool:
        """A program has reported its objective, as the end of a window, and the share of that time that it waited;
        whether the delay is another one now.
        """
        if self._auto is None:
            return False
        before = self.delay
        self._close(1.0, objective, 0.0, waited)
        return self.delay != before

    def _close(self, work: float, objective: float, error: float, waited: float) -> None:
        """Have the window that is over judged, by the time that workers have worked in it.

        On the clock, whatever else the machine has to do would count as well.
        """
        assert self._auto is not None
        waited = min(MOST_WAITED, waited)
        self._auto.add(Window(1.0 - waited, work, objective, error, waited))
        self.delay = self._auto.delay
