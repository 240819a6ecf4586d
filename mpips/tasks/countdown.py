"""Something to be done when several other things are."""

from collections.abc import Callable

Then = Callable[[], None]


def nothing() -> None:
    """Nothing is to follow."""


class Countdown:
    """Calls `then` when as many things as were counted, and the counting itself, are done."""

    __slots__ = ("_left", "_then")

    def __init__(self, then: Then) -> None:
        self._left = 1
        self._then = then

    def one_more(self) -> Then:
        """Count another thing; to be called when it is done."""
        self._left += 1
        return self.done

    def done(self) -> None:
        """One thing is done, or the counting is."""
        self._left -= 1
        if self._left == 0:
            self._then()
