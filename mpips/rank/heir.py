"""Who follows the scheduler when it is dead, as each rank finds out for itself."""

from collections.abc import Callable

from mpips.fabric import Fabric, PeerLost
from mpips.messages import Snapshot
from mpips.plan import Plan
from mpips.scheduler.replica import Replica, pack
from mpips.scheduler.standby import Standby
from mpips.views.view import View

PATIENCE = 1.0  # seconds for a standby that this rank has not heard of yet to say that it is the scheduler


class Heir:
    """One for each rank: it knows whether it is this rank that is to follow.

    Parameters
    ----------
    fabric, plan : this rank's.
    view : tells who does what.

    Attributes
    ----------
    silent : schedulers of which this rank, a standby, has heard nothing for too long, or whose hosts are silent.
    """

    def __init__(self, fabric: Fabric, view: Callable[[], View], plan: Plan) -> None:
        self.silent: set[int] = set()
        self._fabric = fabric
        self._view = view
        self._standby = Standby(fabric, plan)
        self._handed_on: set[int] = set()  # ranks that were given the state in the place of a dead scheduler
        self._orphaned: float | None = None  # since when nobody is known who could be the scheduler

    @property
    def gone(self) -> set[int]:
        """Ranks that are dead, or taken for dead."""
        return self._fabric.lost | self.silent

    @property
    def replica(self) -> Replica | None:
        """The scheduler's state; None when this rank does not mirror it."""
        replica = self._standby.replica
        if replica is not None and replica.scheduler.view.number < self._view().number:
            return None  # of times when this rank was a standby
        return replica

    @property
    def ahead(self) -> float:
        """Seconds by which the scheduler's clock is ahead of this rank's."""
        return self._standby.ahead

    def silence(self, rank: int) -> None:
        """Nothing is heard of a rank: if it is the scheduler that this rank mirrors, it is taken for dead."""
        replica = self._standby.replica
        if replica is not None and rank == replica.scheduler.view.scheduler and replica.scheduler.began:
            self.silent.add(rank)

    def has_its_turn(self) -> bool:
        """Whether the scheduler is dead and this rank is to take its place; another, whose turn it is, is given the
        state, if this rank has it.

        Raises
        ------
        PeerLost
            when nobody can be the scheduler any more.
        """
        gone = self.gone
        if not gone:
            return False
        replica = self.replica
        view = replica.scheduler.view if replica is not None else self._view()
        first = next((rank for rank in view.standbys if rank not in gone), None)
        if view.scheduler not in gone:
            self._orphaned = None
        elif first is not None and first != self._fabric.rank:
            self._orphaned = None
            if replica is not None:
                self._hand_on(replica, first)
        elif first is not None and (replica is not None or view.number == 1):
            return True
        elif self._orphaned is None:
            self._orphaned = self._fabric.now()
        elif self._fabric.now() - self._orphaned > PATIENCE:
            raise PeerLost(f"rank {view.scheduler} (scheduler) died")
        return False

    def _hand_on(self, replica: Replica, heir: int) -> None:
        """Give the state to the standby that gets this rank's place: the scheduler may have died before it did so."""
        if heir not in self._handed_on:
            self._handed_on.add(heir)
            self._fabric.send(heir, Snapshot(replica.scheduler.view.number, replica.index, pack(replica)))
