"""Has numba ready on ranks that may be in a hurry later: the first kernel of a process takes a third of a second."""

import math

import numpy as np

from mpips.fabric import Fabric
from mpips.kernels.checksum import fletcher32
from mpips.views.view import View

TURN = 1.0  # seconds between two spares that get ready: it takes a third of that from whoever shares the core


class Readiness:
    """One for each rank: a standby is ready at once, since later the scheduler would wait for it, and spares one after
    the other, before there is any use for them.

    Parameters
    ----------
    fabric, view : this rank's.
    """

    def __init__(self, fabric: Fabric, view: View) -> None:
        self._fabric = fabric
        self._turn = math.inf
        if fabric.rank in view.standbys:
            _load_numba()
        elif fabric.rank in view.spares:
            self._turn = fabric.now() + TURN * (1 + view.spares.index(fabric.rank))
        fabric.background.append(self._step)

    def _step(self) -> bool:
        if self._fabric.now() >= self._turn:
            self._turn = math.inf
            _load_numba()
        return False


def _load_numba() -> None:
    fletcher32(np.zeros(2, np.uint16))
