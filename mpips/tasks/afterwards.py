"""What is to be done after something else, without calling it from there: a chain of tasks may be of any length."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class Afterwards:
    """Runs steps one after the other, never one inside another."""

    __slots__ = ("_running", "_steps")

    def __init__(self) -> None:
        self._steps: deque[Callable[[], None]] = deque()
        self._running = False

    def run(self, steps: Iterable[Callable[[], None]]) -> None:
        """Run these steps now; or, called by a step, when that has returned."""
        self._steps.extend(steps)
        if self._running:
            return
        self._running = True
        try:
            while self._steps:
                self._steps.popleft()()
        finally:
            self._running = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a step waits for what others of the steps do, they are run."""
        running, self._running = self._running, False
        try:
            yield
        finally:
            self._running = running
