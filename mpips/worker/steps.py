"""The steps of a worker's pushes to a table: what a server knows a push by, whoever makes it. Pure.

A step is ``counter << 32 | i``: `counter` numbers the batches that an identity was ever given, `i` the pushes in one of
them. A batch that is done again under the same identity and counter makes the same steps, so each of its pushes counts
once. Pushes between batches come after all that anybody may have made in the last one.
"""

from typing import NamedTuple

COUNTER = 32  # bits below the counter
BETWEEN = 1 << 31  # more than the pushes of a batch


class Step(NamedTuple):
    """What a push is known by: whose it is, its number, and the newest cut that it comes after (0: none)."""

    identity: int
    number: int
    cut: int


def spelled(step: int) -> str:
    """A step for a person: "7.2" is the second push of batch 7, "7+1" the first between that and the next; without
    batches it is a plain number.
    """
    counter, number = step >> COUNTER, step & ((1 << COUNTER) - 1)
    if number >= BETWEEN:
        return f"{counter}+{number - BETWEEN}"
    return f"{counter}.{number}" if counter else str(number)


class Steps:
    """Numbers the pushes of one worker to one table.

    Parameters
    ----------
    identity : whose pushes they are between batches.
    """

    def __init__(self, identity: int) -> None:
        self._identity = identity
        self._between = 0
        self._cut = 0
        self._batch: tuple[int, int, int] | None = None  # identity, counter and cut
        self._made = 0  # in this batch

    def begin_batch(self, identity: int, counter: int, cut: int = 0) -> None:
        """What follows belongs to this batch of this identity, which was handed out after this cut."""
        self._batch, self._made = (identity, counter, cut), 0
        self.cross(cut)

    def cross(self, cut: int) -> None:
        """What follows, but for batches that were handed out before, comes after this cut."""
        self._cut = max(self._cut, cut)

    def end_batch(self) -> None:
        """What follows belongs to no batch."""
        if self._batch is not None:
            self.pass_by(*self._batch[:2])
        self._batch = None

    def pass_by(self, identity: int, counter: int) -> None:
        """The batches up to this counter of an identity are over, whoever did them."""
        if identity == self._identity:
            self._between = max(self._between, counter << COUNTER | BETWEEN)

    def next(self) -> Step:
        """The next push."""
        if self._batch is None:
            self._between += 1
            return Step(self._identity, self._between, self._cut)
        self._made += 1
        identity, counter, cut = self._batch
        return Step(identity, counter << COUNTER | self._made, cut)
