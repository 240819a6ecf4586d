"""A rank's line to the scheduler, whichever rank that is."""

from mpips.fabric import Fabric
from mpips.messages import Message


class Line:
    """One for each rank.

    Parameters
    ----------
    fabric : the rank's.
    scheduler : the rank that is the scheduler now.
    """

    def __init__(self, fabric: Fabric, scheduler: int) -> None:
        self._fabric = fabric
        self.scheduler = scheduler

    def tell(self, message: Message) -> None:
        """Send the scheduler a message."""
        self._fabric.send(self.scheduler, message)
