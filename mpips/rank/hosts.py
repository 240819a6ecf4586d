"""Which hosts have fallen silent, and on which side of a cut network this rank is.

A host is heard if any of its ranks is. The scheduler and its standbys hear all hosts, the other ranks those of these.
Only the side that has most of the ranks goes on; of two halves that of the scheduler. The other one leaves, so that no
two jobs come of one.
"""

from collections.abc import Callable

from mpips.fabric import Fabric
from mpips.views.view import View

LOOKS = 8  # at what was heard, within the time that a host may be silent
NEVER = 5.0  # times that time, until it is told that of a host no sign has ever come
FOLLOWERS = 3.0  # times that time, until a rank that hears nobody who leads leaves: another may come to lead meanwhile


class Hosts:
    """One for each rank of a job on several hosts.

    Parameters
    ----------
    fabric : the rank's.
    view : tells who does what.
    limit : seconds that a host may be silent.
    on_silent : called with a rank that is to be taken for dead.
    on_cut_off : called with why this rank is to leave.
    note : called with what the user should know.
    """

    def __init__(
        self,
        fabric: Fabric,
        view: Callable[[], View],
        limit: float,
        on_silent: Callable[[int], None],
        on_cut_off: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self._fabric = fabric
        self._view = view
        self._limit = limit
        self._on_silent = on_silent
        self._on_cut_off = on_cut_off
        self._note = note
        self._watched: dict[int, float] = {}  # since when, by node
        self._noted = False
        self._next = self._looked = fabric.now()
        fabric.background.append(self._step)

    def _step(self) -> bool:
        now = self._fabric.now()
        if now < self._next:
            return False
        late, self._looked = now - self._looked > self._limit / 2, now
        self._next = now + self._limit / LOOKS
        if not late:  # who has stood still has yet to read what came meanwhile
            self._look(now)
        return False

    def _look(self, now: float) -> None:
        view, me = self._view(), self._fabric.rank
        living: dict[int, list[int]] = {}
        for rank, node in enumerate(view.nodes):
            if rank not in view.lost and rank not in self._fabric.lost:
                living.setdefault(node, []).append(rank)
        leaders = [rank for rank in (view.scheduler, *view.standbys) if rank in living.get(view.nodes[rank], ())]
        here, leads = view.nodes[me], me in leaders
        self._fabric.give_signs_to([rank for ranks in living.values() for rank in ranks] if leads else leaders)
        watched = living.keys() if leads else {view.nodes[rank] for rank in leaders}
        self._watched = {node: self._watched.get(node, now) for node in watched if node != here}
        silent = dict[int, float]()
        for node, since in self._watched.items():
            signs = [self._fabric.heard(rank) for rank in living[node] if leads or rank in leaders]
            last = max((sign for sign in signs if sign is not None), default=None)
            if last is not None and now - max(since, last) > self._limit:
                silent[node] = now - max(since, last)
            elif last is None and me == view.scheduler and now - since > NEVER * self._limit and not self._noted:
                self._noted = True
                self._note(
                    f"no sign of life has come from the host of rank {living[node][0]}, are datagrams (UDP) kept "
                    "from passing? A host that falls silent is not noticed then"
                )
        if not silent:
            return
        if not leads:
            # a standby's host alone is not missed for long: whoever leads on this one makes another one standby
            if silent.keys() == self._watched.keys() and min(silent.values()) > FOLLOWERS * self._limit:
                self._on_cut_off("nothing is heard of the scheduler, nor of who could follow it")
            return
        gone = [rank for node in silent for rank in living[node]]
        everyone = sum(len(ranks) for ranks in living.values())
        if 2 * len(gone) > everyone or (2 * len(gone) == everyone and view.scheduler in gone):
            self._on_cut_off(f"nothing is heard of {len(gone)} of {everyone} ranks")
        elif me == view.scheduler:
            for rank in sorted(gone, key=lambda rank: rank not in view.spares):  # who is gone must take no place
                self._on_silent(rank)
        elif view.scheduler in gone:
            self._on_silent(view.scheduler)
