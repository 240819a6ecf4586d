"""Things that must be done in the order in which they came, each of them once it may be."""

from collections import deque
from collections.abc import Callable
from typing import Any


class Turn:
    """A place in a lane, and whose it is."""

    __slots__ = ("_lane", "_run", "owner")

    def __init__(self, lane: "Lane", run: Callable[[], None], owner: Any) -> None:
        self.owner = owner
        self._lane = lane
        self._run: Callable[[], None] = run
        lane.queue.append(self)

    def come(self) -> None:
        """It may be done: now, or when all before it are."""
        self._lane.ready.add(self)
        while self._lane.queue and self._lane.queue[0] in self._lane.ready:
            turn = self._lane.queue.popleft()
            self._lane.ready.discard(turn)
            turn._run()


class Lane:
    """A queue of turns.

    Attributes
    ----------
    queue : those to come, in order.
    ready : those among them that only wait for the ones before.
    """

    __slots__ = ("queue", "ready")

    def __init__(self) -> None:
        self.queue: deque[Turn] = deque()
        self.ready: set[Turn] = set()

    def add(self, run: Callable[[], None], owner: Any = None) -> Turn:
        """Queue something; it runs after `Turn.come`, and after all that was added before."""
        return Turn(self, run, owner)
