"""How busy a rank is: read now and then, often at first and once a second in the long run."""

from mpips.fabric.base import Fabric

SHORTEST, LONGEST, SHARE = 0.05, 1.0, 0.05  # seconds between readings, and as a share of the time so far


class Meter:
    """Of one rank, from when it was made, or from `begin`."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.begin()

    def begin(self) -> None:
        """Forget what was before."""
        self._start = self._last = self._fabric.now(), self._fabric.busy()
        self._next = self._start[0] + SHORTEST

    def reading(self) -> float | None:
        """The share of the time since the last reading that the rank was busy; None when it is too early for one."""
        now = self._fabric.now()
        if now < self._next:
            return None
        time, busy = self._last
        self._last = now, self._fabric.busy()
        self._next = now + min(LONGEST, max(SHORTEST, SHARE * (now - self._start[0])))
        return (self._last[1] - busy) / (now - time)

    @property
    def idle(self) -> float:
        """The share of all its time that the rank has waited with nothing to do."""
        time, busy = self._start
        return 1.0 - (self._fabric.busy() - busy) / max(1e-9, self._fabric.now() - time)
