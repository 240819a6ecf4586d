"""A rank's signs of life, and its ear for those of others."""

from collections.abc import Callable

from mpips.fabric import Fabric
from mpips.messages import Alive
from mpips.scheduler.patience import SIGNS, Patience, watched_by
from mpips.views.view import View


class Pulse:
    """One for each rank of a job whose patience has an end.

    Parameters
    ----------
    fabric : the rank's.
    view : tells who does what.
    limit : seconds that a rank may be silent.
    on_silent : called with a rank that this one watches and that has been silent for longer.
    """

    def __init__(
        self, fabric: Fabric, view: Callable[[], View], limit: float, on_silent: Callable[[int], None]
    ) -> None:
        self._fabric = fabric
        self._view = view
        self._period = limit / SIGNS
        self._next = 0.0
        self._patience = Patience(limit)
        self._on_silent = on_silent
        fabric.on(Alive, lambda source, message: self._patience.heard(source, fabric.now()))
        fabric.background.append(self._step)

    def _step(self) -> bool:
        now = self._fabric.now()
        if now < self._next:
            return False
        self._next = now + self._period
        view, me = self._view(), self._fabric.rank
        for rank in {view.scheduler, *view.standbys} - {me}:
            if me in watched_by(view, rank):
                self._fabric.send(rank, Alive())
        watched = [rank for rank in watched_by(view, me) if rank not in self._fabric.lost]
        for rank in self._patience.silent(watched, now):
            self._on_silent(rank)
        return False
