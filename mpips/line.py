"""A rank's line to the scheduler, whichever rank that is."""

from mpips.fabric import Fabric
from mpips.messages import FromScheduler, Load, Message, RankHeard, SchedulerHeard, ToScheduler, decode, encode
from mpips.session import Session, Utterance

SCHEDULER = -1  # as the source of a message, and as a peer to wait for: the scheduler, whichever rank that is


class Line:
    """One for each rank. What is told arrives once and in order, and so does what the scheduler says: that is handled
    here as if it came from the rank `SCHEDULER`.

    Parameters
    ----------
    fabric : the rank's.
    scheduler : the rank that is the scheduler now.
    """

    def __init__(self, fabric: Fabric, scheduler: int) -> None:
        self._fabric = fabric
        self.scheduler = scheduler
        self._session = Session()
        fabric.on(FromScheduler, self._hear)
        fabric.on(RankHeard, lambda source, message: self._session.safe(message.number))

    def tell(self, message: Message) -> None:
        """Send the scheduler a message. A `Load` may get lost: the next says more."""
        if isinstance(message, Load):
            self._fabric.send(self.scheduler, message)
        else:
            self._send(self._session.say(encode(message)))

    def lead_to(self, scheduler: int) -> None:
        """The scheduler is another rank from now on: it is told what the one before may not have heard."""
        self.scheduler = scheduler
        for utterance in self._session.kept:
            self._send(utterance)

    def _send(self, utterance: Utterance) -> None:
        self._fabric.send(self.scheduler, ToScheduler(utterance.number, self._session.heard, utterance.message))

    def _hear(self, source: int, message: FromScheduler) -> None:
        self._session.safe(message.heard)
        if not self._session.hear(message.number):
            return
        if self._session.owes():
            self._fabric.send(self.scheduler, SchedulerHeard(self._session.heard))
        self._fabric.dispatch(SCHEDULER, decode(message.message))
