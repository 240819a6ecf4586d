"""Losses that are not made up for yet: the stages of the recovery from each, for the log of the run. Pure.

A rank may have had several roles, as a scheduler that is a server, too. Its loss is made up for when that is so for
every one of them.
"""

from mpips import messages as m
from mpips.plan import Plan
from mpips.scheduler.effects import Effects
from mpips.scheduler.tally import Tally
from mpips.scheduler.work import Work
from mpips.views.view import View


class Loss:
    """One of them.

    Parameters
    ----------
    number : of the recovery.
    rank : that was lost.
    view : the last one with it.
    data : whether the job has data.
    copied : bytes that servers had copied before.

    Attributes
    ----------
    role : what was lost; of several roles the foremost.
    several : whether there were several.
    waiting : roles of which nothing is known to go on yet.
    missing : roles that something is still missing of.
    parts : those of the data that nobody has read in its place yet.
    view : the first view without it; 0 while there is none.
    goes_on : whether what waited for it has been acknowledged.
    """

    def __init__(self, number: int, rank: int, view: View, data: bool, copied: int) -> None:
        self.number = number
        self.copied = copied
        self.rank = rank
        self.role = view.role(rank)
        self.parts = {part for part, server in enumerate(view.parts) if data and server == rank}
        had = {
            "scheduler": rank == view.scheduler,
            "server": rank in view.servers,
            "data server": bool(self.parts),
            "worker": rank in view.workers,
        }
        self.missing = {role for role in had if had[role]}
        self.waiting = set(self.missing)
        self.several = len(self.missing) > 1
        self.view = 0
        self.goes_on = False


class Losses:
    """Those of one job.

    Parameters
    ----------
    plan, work : the job, and who has which workload.
    tally : knows how much has been copied.
    effects : takes the events.
    """

    def __init__(self, plan: Plan, work: Work, tally: Tally, effects: Effects) -> None:
        self._plan = plan
        self._work = work
        self._tally = tally
        self._effects = effects
        self._count = 0
        self._open: list[Loss] = []

    def detected(self, rank: int, view: View) -> Loss:
        """A rank of a view is dead, or taken for dead."""
        self._count += 1
        loss = Loss(self._count, rank, view, self._plan.data is not None, self._tally.all_copied)
        self._open.append(loss)
        self._log(loss, "detected")
        return loss

    def viewed(self, loss: Loss, view: int, text: str) -> None:
        """There is a view without it, in which something was done about it."""
        loss.view = view
        self._log(loss, "view", text)
        if not loss.missing:
            self._goes_on(loss)
            self._whole(loss)

    def resumed(self, view: int) -> None:
        """A rank goes on with what it had to send or ask for again in a view."""
        for loss in self._open:
            if loss.view <= view:
                self._goes_on(loss, "server", "data server")

    def settled(self) -> None:
        """All copies of shards are where they belong."""
        for loss in list(self._open):
            if loss.several:  # whether anything had waited for its shards or not: its other roles tell when it goes on
                self._goes_on(loss, "server")
            if "server" in loss.missing:
                self._whole(loss, "server")

    def heard(self, source: int, message: m.Message) -> None:
        """See what a message, once it is handled, says of what was lost."""
        for loss in list(self._open):
            if "worker" in loss.missing:
                self._see_work(loss, message)
            if "scheduler" in loss.missing and isinstance(message, m.WorkRequest | m.WorkDone | m.ViewTaken):
                self._goes_on(loss, "scheduler")
                self._whole(loss, "scheduler")
            if "data server" in loss.missing and isinstance(message, m.DataReady) and source != loss.rank:
                loss.parts.discard(message.part)
                if not loss.parts:
                    self._goes_on(loss, "data server")
                    self._whole(loss, "data server")

    def _see_work(self, loss: Loss, message: m.Message) -> None:
        """See whether what a worker had to do is taken on, or done."""
        program = self._plan.data is None or self._plan.keeps_rows
        if program and not (isinstance(message, m.ViewTaken) and message.number >= loss.view):
            return
        left, undone = self._work.owed(loss.rank)
        if not left:
            self._goes_on(loss, "worker")
        if not undone and "worker" not in loss.waiting:
            self._whole(loss, "worker")

    def _goes_on(self, loss: Loss, *roles: str) -> None:
        """What waited for these roles is acknowledged."""
        loss.waiting.difference_update(roles)
        if not loss.waiting and not loss.goes_on:
            loss.goes_on = True
            self._log(loss, "acknowledged")

    def _whole(self, loss: Loss, *roles: str) -> None:
        """Nothing is missing of these roles any more."""
        loss.missing.difference_update(roles)
        if not loss.missing:
            self._open.remove(loss)
            self._log(loss, "whole", copied=self._tally.all_copied - loss.copied)

    def _log(self, loss: Loss, stage: str, text: str = "", **more: int) -> None:
        self._effects.log(
            "recovery", stage=stage, recovery=loss.number, rank=loss.rank, role=loss.role, text=text, **more
        )
