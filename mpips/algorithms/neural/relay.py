"""What the members of a team give each other of arrays that each has a box of, and needs another box of."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpips.algorithms.neural.partition import Box

Array = np.ndarray[Any, Any]


class Swap(NamedTuple):
    """By member, what it is given, and where to put what it gives; when all is there, the work goes on.

    All members come to the same swaps in the same order.
    """

    give: dict[int, Array]
    take: dict[int, Array]


Work = Generator[Swap, None, Any]


class Relay:
    """Between two layers, or two uses of weights: there everyone gets what it needs, and back its sum comes to who has
    it.

    Parameters
    ----------
    have, need : by member; the boxes that they have are apart.
    member : who this is.
    width : of a row, in numbers: the other dimensions of the arrays.
    dtype : of the arrays, (channels, rows, …).
    """

    def __init__(self, have: Sequence[Box], need: Sequence[Box], member: int, width: tuple[int, ...], dtype: Any):
        self._member = member
        self._have, self._need = have[member], need[member]
        others = [other for other in range(len(have)) if other != member]
        to = {other: have[member].meet(need[other]) for other in others}
        of = {other: have[other].meet(need[member]) for other in others}
        self._to = {other: box for other, box in to.items() if not box.empty}
        self._of = {other: box for other, box in of.items() if not box.empty}
        self._into = np.empty((*self._need.shape, *width), dtype)
        self._back = np.empty((*self._have.shape, *width), dtype)
        self._terms = {other: np.empty((*box.shape, *width), dtype) for other, box in self._to.items()}

    def there(self, values: Array) -> Generator[Swap, None, Array]:
        """What this member needs, by what it has."""
        own = self._have.meet(self._need)
        self._into[own.within(self._need)] = values[own.within(self._have)]
        cuts = {box: values[box.within(self._have)] for box in set(self._to.values())}
        yield Swap(
            {other: cuts[box] for other, box in self._to.items()},  # the same for all who need the same
            {other: self._into[box.within(self._need)] for other, box in self._of.items()},
        )
        return self._into

    def back(self, terms: Array) -> Generator[Swap, None, Array]:
        """The sum over the members of what each has found for what it needed, for what this member has."""
        yield Swap({other: terms[box.within(self._need)] for other, box in self._of.items()}, dict(self._terms))
        own = self._have.meet(self._need)
        self._back[:] = 0
        for member in sorted({*self._to, self._member}):  # in one order, so that nobody's sum differs
            if member == self._member:
                self._back[own.within(self._have)] += terms[own.within(self._need)]
            else:
                self._back[self._to[member].within(self._have)] += self._terms[member]
        return self._back
