"""What a server has been asked for lies in its arena until whoever asked has taken it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.messages import Message, Taken
from mpips.tasks import Received

Array = np.ndarray[Any, Any]


class Answers:
    """One for each server.

    Parameters
    ----------
    fabric, received : this rank's.

    Attributes
    ----------
    plain : bytes left for other nodes without filters.
    """

    def __init__(self, fabric: Fabric, received: Received) -> None:
        self.plain = 0
        self._fabric = fabric
        self._received = received
        self._slots: dict[tuple[int, int, int], int] = {}  # by source, time and part
        self._gone: set[int] = set()
        fabric.on(Taken, self._taken)

    def leave(
        self, source: int, time: int, arrays: list[Array], reply: Callable[[int], Message], part: int = 0
    ) -> bool:
        """Leave arrays side by side, tell the source where by `reply`, and be done with its task; without room for
        them refuse it, and leave nothing for the dead: False.
        """
        if source in self._gone:  # it died while its question was read
            self._received.done(source, time, part)
            return False
        try:
            slot = self._fabric.space.allocate(sum(array.nbytes for array in arrays))
        except Error as problem:
            self._received.refuse(source, time, str(problem), part)
            return False
        at = slot
        for array in arrays:
            self._fabric.arena[at : at + array.nbytes] = array.view(np.uint8).reshape(-1)
            at += array.nbytes
        self._slots[source, time, part] = slot
        self._fabric.send(source, reply(slot))
        self._received.done(source, time, part)
        return True

    def waiting(self) -> list[tuple[int, int, int]]:
        """Those that are not taken yet: source, time and part of each."""
        return list(self._slots)

    def forget(self, rank: int) -> None:
        """A rank is dead: it takes nothing more."""
        self._gone.add(rank)
        for key in [key for key in self._slots if key[0] == rank]:
            self._fabric.space.free(self._slots.pop(key))

    def _taken(self, source: int, message: Taken) -> None:
        slot = self._slots.pop((source, message.time, message.part), None)
        if slot is not None:  # an answer that came twice is taken twice
            self._fabric.space.free(slot)
