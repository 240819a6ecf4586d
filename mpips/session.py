"""A conversation that outlives a party's host: everything is numbered, kept until it is heard, heard once. Pure.

Between a rank and the scheduler, whichever rank that is: each side holds a `Session`. A successor has the scheduler's
side just as it was, says again what may not have been heard, and drops what it has heard.
"""

from collections import deque
from typing import NamedTuple

ALONE = 32  # things heard, and not yet acknowledged by the way, after which an acknowledgement goes out alone


class Utterance(NamedTuple):
    """One thing that was said."""

    number: int
    message: bytes


class Session:
    """One side of a conversation.

    Attributes
    ----------
    heard : how many things the other side has said that have arrived here.
    kept : what was said here and is not known to have arrived, in order.
    """

    def __init__(self) -> None:
        self.heard = 0
        self.kept: deque[Utterance] = deque()
        self._said = 0
        self._acknowledged = 0  # of what was heard

    def say(self, message: bytes) -> Utterance:
        """Number a message, and keep it. It is to be sent along with `heard`."""
        self._said += 1
        self._acknowledged = self.heard
        self.kept.append(Utterance(self._said, message))
        return self.kept[-1]

    def hear(self, number: int) -> bool:
        """Take notice that the other side's `number`-th thing is here; False when it is not the next.

        Then it is a repetition; or one before it is missing, and the other side will say both again.
        """
        if number != self.heard + 1:
            return False
        self.heard = number
        return True

    def safe(self, number: int) -> None:
        """Take notice that the other side has heard the first `number` things that were said here."""
        while self.kept and self.kept[0].number <= number:
            self.kept.popleft()

    def owes(self) -> bool:
        """Whether it is time to say how much was heard, for want of anything else to say. The answer yes is taken as
        a promise to do so.
        """
        if self.heard - self._acknowledged < ALONE:
            return False
        self._acknowledged = self.heard
        return True
