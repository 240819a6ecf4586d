"""A standby's mirror of the scheduler: it applies the same inputs, and does nothing of what follows from them."""

from mpips.fabric import Fabric
from mpips.messages import Inputs, Mirrored, Snapshot
from mpips.plan import Plan
from mpips.scheduler.replica import Replica, unpack


class Standby:
    """One for each rank; without effect as long as no scheduler sends it a snapshot.

    Parameters
    ----------
    fabric, plan : this rank's.

    Attributes
    ----------
    replica : the scheduler's state; None before there is any.
    ahead : seconds by which the scheduler's clock is ahead of this rank's.
    """

    def __init__(self, fabric: Fabric, plan: Plan) -> None:
        self.replica: Replica | None = None
        self.ahead = 0.0
        self._fabric = fabric
        self._plan = plan
        self._scheduler = -1
        fabric.on(Snapshot, self._begin)
        fabric.on(Inputs, self._apply)

    def _begin(self, source: int, message: Snapshot) -> None:
        have = (self.replica.scheduler.view.number, self.replica.index) if self.replica is not None else (0, 0)
        if (message.view, message.index) < have:
            return  # from a scheduler that has been followed by another, or from who knows less
        self._scheduler = source
        self.replica = unpack(message.state, self._plan)
        self.ahead = self.replica.time - self._fabric.now()
        self._fabric.send(source, Mirrored(message.index))

    def _apply(self, source: int, message: Inputs) -> None:
        if source != self._scheduler or self.replica is None:
            return
        self._fabric.send(source, Mirrored(message.index + len(message.inputs)))  # others wait for that
        for given in message.inputs[max(0, self.replica.index - message.index) :]:
            self.replica.apply(given)
        self.replica.done(message.done)
        self.ahead = self.replica.time - self._fabric.now()
