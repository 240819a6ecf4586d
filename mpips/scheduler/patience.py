"""Who has been silent for too long: signs of life come in, and the time. Pure.

A server, a data server and a standby say now and then that they are at work, to the scheduler; the scheduler says so to
its standbys. They say it where they also serve, so one that hangs is found, too.
"""

from mpips.views.view import View

SIGNS = 4  # of life within the time that a rank may be silent
GRACE = 10.0  # times that time, for the first sign of who has just got its role: it may have much to make ready


def watched_by(view: View, rank: int) -> list[int]:
    """The ranks whose signs of life go to a rank."""
    if rank == view.scheduler:
        busy = {*view.servers, *view.data_servers, *view.standbys} - {rank, *view.lost}
        return sorted(busy)
    return [view.scheduler] if rank in view.standbys else []


class Patience:
    """One rank's, with all those that it watches.

    Parameters
    ----------
    limit : seconds that they may be silent.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._heard: dict[int, float] = {}
        self._looked: float | None = None

    def heard(self, rank: int, now: float) -> None:
        """A rank gives a sign of life."""
        if rank in self._heard:
            self._heard[rank] = now

    def silent(self, watched: list[int], now: float) -> list[int]:
        """Those that have been silent for too long; each is named once for every time that it has.

        To be asked more often than `limit` passes. Who asks late has stood still itself, and gives all others the time
        that this took: what they have said meanwhile is not read yet. Who watches others than before, as a new
        scheduler does, knows of none of them that it has just got its role.
        """
        late = 0.0 if self._looked is None else max(0.0, now - self._looked - self._limit / 2)
        self._looked = now
        follows = bool(self._heard) and self._heard.keys().isdisjoint(watched)
        first = now + (0.0 if follows else (GRACE - 1) * self._limit)
        self._heard = {rank: self._heard[rank] + late if rank in self._heard else first for rank in watched}
        silent = [rank for rank, heard in self._heard.items() if now - heard > self._limit]
        self._heard.update(dict.fromkeys(silent, now))
        return silent
