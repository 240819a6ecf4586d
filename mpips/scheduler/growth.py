"""More or fewer servers and workers while the job runs: by its plan, or because somebody asks. Pure."""

from typing import NamedTuple

from mpips.plan import Plan
from mpips.scheduler.effects import Effects
from mpips.scheduler.membership import CannotScale, Membership
from mpips.scheduler.tally import Tally


class Change(NamedTuple):
    """One that is under way: to so many servers and workers, None for as they were; bytes copied in the job before."""

    servers: int | None
    workers: int | None
    copied: int


class Growth:
    """The changes of a job's size.

    Parameters
    ----------
    plan : the job; its changes are made in their order when their time or epoch has come.
    membership : makes them.
    effects : takes events and answers.
    tally : knows how much has been copied.
    """

    def __init__(self, plan: Plan, membership: Membership, effects: Effects, tally: Tally) -> None:
        self._planned = list(plan.scales)
        self._membership = membership
        self._effects = effects
        self._tally = tally
        self._began: float | None = None
        self._asked: set[str] = set()
        self._unanswered: dict[str, str] = {}
        self._under_way: list[Change] = []

    def begin(self, now: float) -> None:
        """Training begins."""
        self._began = now

    def _next(self, now: float, epoch: int) -> int | None:
        """The place in the plan of a change whose time has come."""
        if self._began is None:
            return None
        for place, change in enumerate(self._planned):
            if (change.at is not None and now >= self._began + change.at) or (change.epoch or epoch + 1) <= epoch:
                return place
        return None

    def due(self, now: float, epoch: int) -> bool:
        """Whether the time of a planned change has come; `epoch` is the one under way, from 1."""
        return self._next(now, epoch) is not None

    def make_planned(self, now: float, epoch: int) -> None:
        """Make the planned changes whose time has come."""
        while (place := self._next(now, epoch)) is not None:
            change = self._planned.pop(place)
            try:
                text = self._membership.scale(change.servers, change.workers)
            except CannotScale as problem:
                text = f"the plan's change was not made: {problem}"
                self._effects.log("scale", servers=change.servers, workers=change.workers, text=text)
            else:
                self._begun(change.servers, change.workers, text)

    def ask(self, name: str, servers: int | None, workers: int | None) -> None:
        """Somebody asks for so many servers and workers, under a name; a name counts once."""
        if name in self._asked:
            return
        self._asked.add(name)
        if self._began is None:
            self._effects.answer(name, "refused", "training has not begun yet")
            return
        try:
            text = self._membership.scale(servers, workers)
        except CannotScale as problem:
            self._effects.answer(name, "refused", str(problem))
            return
        self._begun(servers, workers, text)
        self._effects.answer(name, "under way", text)
        self._unanswered[name] = text

    def _begun(self, servers: int | None, workers: int | None, text: str) -> None:
        self._effects.log("scale", servers=servers, workers=workers, text=text)
        self._under_way.append(Change(servers, workers, self._tally.all_copied))

    def settle(self) -> None:
        """Tell who has asked, and the log, that it is done, if all copies are where they are to be."""
        if not self._membership.settled:
            return
        for change in self._under_way:
            copied = self._tally.all_copied - change.copied
            self._effects.log("scaled", servers=change.servers, workers=change.workers, copied=copied)
        self._under_way.clear()
        for name, text in self._unanswered.items():
            self._effects.answer(name, "done", text)
        self._unanswered.clear()
