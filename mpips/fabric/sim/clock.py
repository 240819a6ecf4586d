"""The virtual clock of a simulation, and what is to happen when."""

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any


class Clock:
    """What is to happen at the same time happens in an order that is drawn.

    Parameters
    ----------
    drawn : random numbers.

    Attributes
    ----------
    time : seconds since the start.
    """

    def __init__(self, drawn: random.Random) -> None:
        self.time = 0.0
        self._random = drawn
        self._events: list[tuple[float, float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        """Whether anything is to happen."""
        return bool(self._events)

    def at(self, time: float, event: Callable[..., object], *arguments: Any) -> None:
        """Have something happen at this time."""
        heapq.heappush(self._events, (time, self._random.random(), next(self._numbers), event, arguments))

    def first_at(self, time: float, event: Callable[..., object], *arguments: Any) -> None:
        """Have something happen at this time, before all that does by `at`."""
        heapq.heappush(self._events, (time, -1.0, next(self._numbers), event, arguments))

    def advance(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        """Go on to the time of the next event: what is to be called, with which arguments."""
        self.time, _, _, event, arguments = heapq.heappop(self._events)
        return event, arguments
