"""More or fewer servers and workers while the job runs: by its plan, or because somebody asks. Pure.


Servers and workers come from the spares. When there are too few of these, more can be asked for: processes that are
started beside a rank that was there at the beginning, its *children*, one after the other.
"""

from typing import NamedTuple

from mpips.messages import Bear
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
        self._first_ranks = len(membership.view.nodes)
        self._births: list[tuple[str, int]] = []  # names of requests for spares, and how many of these are to come
        self._born: list[int] = []  # of the first of these requests
        self._parent: int | None = None  # who is to start the next

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
        if not self._counts(name):
            return
        try:
            text = self._membership.scale(servers, workers)
        except CannotScale as problem:
            self._effects.answer(name, "refused", str(problem))
            return
        self._begun(servers, workers, text)
        self._effects.answer(name, "under way", text)
        self._unanswered[name] = text

    def _counts(self, name: str) -> bool:
        """Whether a request of this name is to be met: it is new, and training has begun; else it is refused."""
        if name in self._asked:
            return False
        self._asked.add(name)
        if self._began is None:
            self._effects.answer(name, "refused", "training has not begun yet")
        return self._began is not None

    def _begun(self, servers: int | None, workers: int | None, text: str) -> None:
        self._effects.log("scale", servers=servers, workers=workers, text=text)
        self._under_way.append(Change(servers, workers, self._tally.all_copied))

    def ask_for_spares(self, name: str, count: int) -> None:
        """Somebody asks for so many spares more, under a name; a name counts once."""
        if not self._counts(name):
            return
        text = f"starting {count} new {'rank' if count == 1 else 'ranks'}"
        self._effects.log("scale", servers=None, workers=None, spares=count, text=text)
        self._effects.answer(name, "under way", text)
        self._births.append((name, count))
        if len(self._births) == 1:
            self._bear()

    def _bear(self) -> None:
        """Have the next rank started."""
        if not self._births:
            return
        self._parent = self._fit_parent()
        if self._parent is None:
            self._give_up("no living rank was there at the start, and only beside such a rank can another be started")
        else:
            self._effects.send(self._parent, Bear(len(self._membership.view.nodes)))

    def _fit_parent(self) -> int | None:
        """A rank that was there at the start, on the node with the fewest living ranks. It does nothing else for a
        second, so one that is missed little: a data server, a server, the scheduler; a worker may be long in its
        program, and the others would wait for it.
        """
        view = self._membership.view
        living = [rank for rank in range(len(view.nodes)) if rank not in view.lost]
        on_node = [view.nodes[rank] for rank in living]

        def cost(rank: int) -> tuple[int, bool, int, int]:
            order = ["spare", "data server", "server", "scheduler", "worker"].index(view.role(rank))
            return on_node.count(view.nodes[rank]), rank in view.standbys, order, rank

        return min((rank for rank in living if rank < self._first_ranks), key=cost, default=None)

    def born(self, source: int, rank: int, error: str | None) -> None:
        """A parent has started a rank that all others know now, or could not."""
        view = self._membership.view
        if source != self._parent or rank != len(view.nodes):
            return
        self._parent = None
        self._membership.add(view.nodes[source], came=error is None)
        if error is not None:
            self._give_up(error)
            return
        self._born.append(rank)
        name, count = self._births[0]
        if len(self._born) == count:
            text = f"{count} more {'spare' if count == 1 else 'spares'}: {_listed(self._born)}"
            self._effects.answer(name, "done", text)
            self._next_request()
        self._bear()

    def lost(self, rank: int) -> None:
        """A rank is dead; if it was about to start another, that one does not come."""
        if rank == self._parent:
            view = self._membership.view
            self._parent = None
            self._membership.add(view.nodes[rank], came=False)
            self._give_up(f"rank {rank} died while it was starting another; ask again")

    def _give_up(self, reason: str) -> None:
        """The first request can't be met."""
        name, count = self._births[0]
        came = f"{len(self._born)} of {count} came, {_listed(self._born)}; " if self._born else ""
        self._effects.log("note", text=f"no new rank: {came}{reason}")
        self._effects.answer(name, "refused", came + reason)
        self._next_request()
        self._bear()

    def _next_request(self) -> None:
        del self._births[0]
        self._born = []

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


def _listed(ranks: list[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
