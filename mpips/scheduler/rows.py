"""Rows that workers keep: dealt out in turn, and again to whoever takes a place over. Pure."""

from collections import deque
from collections.abc import Iterable

from mpips.messages import NoMoreWork, Workload
from mpips.scheduler.ledger import Ledger


class Rows:
    """Of the main group, each of whose workers asks for workloads until it is told that there are no more.

    Parameters
    ----------
    ledger : has the rows.
    places : of the group's workers; they take turns in this order, so that each has the same in every run, however long
        messages take.
    """

    def __init__(self, ledger: Ledger, places: Iterable[int]) -> None:
        self._ledger = ledger
        self._turns = deque(places)
        self._dealt: dict[int, list[Workload]] = {}  # by place
        self._given: dict[int, int] = {}  # how many of its place a worker has been given
        self._have_all: set[int] = set()

    def has_all(self, worker: int) -> bool:
        """Whether a worker was told that there are no more."""
        return worker in self._have_all

    def turn(self, place: int) -> int:
        """How many places have their turn before this one."""
        return self._turns.index(place)

    def next(self, worker: int, place: int, now: float) -> Workload | NoMoreWork | None:
        """What a worker that asks gets: what its place was dealt before, something new if it has its turn; or nothing
        for now.
        """
        dealt, given = self._dealt.setdefault(place, []), self._given.get(worker, 0)
        if given == len(dealt):
            if not self._ledger.has_rows_left:
                self._have_all.add(worker)
                return NoMoreWork()
            if self._turns[0] != place:
                return None
            self._turns.rotate(-1)
            workload = self._ledger.next(worker, now)
            assert workload is not None
            self._ledger.done(worker, workload.number, now)  # as far as the ledger goes: it belongs to this place now
            dealt.append(workload)
        self._given[worker] = given + 1
        return dealt[given]

    def viewed(self, places: Iterable[int]) -> None:
        """Take places out that nobody has any more, and put new ones behind the others."""
        wanted = dict.fromkeys(places)
        kept = [place for place in self._turns if place in wanted]
        self._turns = deque([*kept, *(place for place in wanted if place not in kept)])
