"""How a job ends: what is under way is waited for, a last checkpoint is written, then all ranks are told. Pure."""

from mpips.messages import Stop
from mpips.plan import Plan
from mpips.scheduler.effects import Effects, End
from mpips.scheduler.saving import Next, Saving
from mpips.scheduler.work import Work
from mpips.views.view import View

DRAIN_SECONDS = 5.0


class Ending:
    """The end of one job.

    Parameters
    ----------
    plan, view, work, saving : the job, who does what, who has which workload, and the generations.
    effects : takes messages, events and the end.

    Attributes
    ----------
    begun : whether the job is about to end.
    over : whether all ranks are told: nothing follows.
    """

    def __init__(self, plan: Plan, view: View, work: Work, saving: Saving, effects: Effects) -> None:
        self.over = False
        self._plan = plan
        self._view = view
        self._work = work
        self._saving = saving
        self._effects = effects
        self._end: End | None = None
        self._drained_by: float | None = None

    @property
    def begun(self) -> bool:
        """See above."""
        return self._end is not None

    def viewed(self, view: View) -> None:
        """There is a new view."""
        self._view = view

    def begin(self, end: End, now: float, began: bool, save: bool = True) -> None:
        """End the job, for the first reason that is given: with a last checkpoint, if there is anything to save.

        Parameters
        ----------
        end : how, and why.
        began : whether training has begun.
        save : whether a checkpoint could be written.
        """
        if self._end is not None:
            if not save:  # a server died while the last checkpoint was being written
                self._end = end
                self._say()
            return
        self._end = end
        self._work.stopped = True
        self._effects.log("stopping", exit=end.exit, reason=end.reason)
        if not (save and self._plan.saves and began):
            self._say()
        elif end.exit == "interrupted" and self._work.under_way:
            self._drained_by = now + DRAIN_SECONDS  # what is under way would be run again after a restart
        else:
            self._save(now)

    def due(self, now: float) -> bool:
        """Whether what is under way, or the last checkpoint, has been waited for long enough."""
        return self._has_drained(now) or self._saving.overdue(now)

    def go_on(self, now: float) -> None:
        """Go on when nothing is under way any more, or nothing more is waited for."""
        if self._drained_by is not None and (self._has_drained(now) or not self._work.under_way):
            self._save(now)
        elif self._saving.overdue(now):
            missing = ", ".join(str(rank) for rank in sorted(self._saving.missing or ()))
            self._say(f"the last checkpoint was not written: no answer from server {missing}")

    def _has_drained(self, now: float) -> bool:
        return self._drained_by is not None and now >= self._drained_by

    def _save(self, now: float) -> None:
        self._drained_by = None
        if self._saving.begin_last():
            self._saving.begin(now)

    def follow(self, follows: Next, now: float) -> None:
        """Do what follows a generation."""
        if follows is Next.AGAIN:
            self._saving.begin(now)
        elif follows is Next.OVER:
            self._say()
        elif follows is Next.LOST:
            self._say(f"the last checkpoint was not written: {self._saving.error}")

    def _say(self, problem: str | None = None) -> None:
        """Tell all ranks, and why if the end is not what it was to be."""
        assert self._end is not None
        end = self._end
        if problem is not None:
            end = End("failed", problem if end.exit == "finished" else f"{end.reason}; {problem}")
        self.over = True
        self._effects.log("end", exit=end.exit, reason=end.reason)
        self._effects.wanted.append(end)
        last = [*self._view.standbys, self._view.scheduler]  # as long as they live, they see to it that all are told
        for rank in [*(rank for rank in range(len(self._view.nodes)) if rank not in last), *last]:
            self._effects.send(rank, Stop(end.exit, end.reason))
