"""When the next generation is due, who still writes it, and what follows when it fails. Pure."""

from collections.abc import Sequence
from enum import Enum

from mpips.views.view import View

RETRY_SECONDS = 5.0
LAST_RETRIES = 3
LAST_RETRY_SECONDS = 1.0
LAST_SAVE_SECONDS = 120.0


class Next(Enum):
    """What follows a generation that was completed, or was not."""

    LATER = "nothing until the next is due"
    AGAIN = "the last one can begin now"
    OVER = "the last one is written"
    LOST = "the last one failed too often"


class Saving:
    """The generations of a job.

    Parameters
    ----------
    servers : ranks that write a part each.
    every : seconds from one generation to the next; 0: only a last one.
    generation : number of the first.

    Attributes
    ----------
    generation : number of the one under way, or of the next.
    missing : servers that still write; None when no generation is under way.
    error : the first thing that went wrong with the one under way.
    """

    def __init__(self, servers: Sequence[int], every: float, generation: int) -> None:
        self.generation = generation
        self.missing: set[int] | None = None
        self.error: str | None = None
        self.started = 0.0
        self._servers = servers
        self._every = every
        self._at: float | None = None
        self._last = False  # the one under way, or the next, is the last
        self._stale = False  # the one under way began too early to be the last, or can't be completed
        self._failures = 0

    def begin_periods(self, now: float) -> None:
        """Training begins: from now on the clock runs."""
        self._at = now + self._every if self._every > 0 else None

    def due(self, now: float) -> bool:
        """Whether a generation should begin now."""
        return self.missing is None and self._at is not None and now >= self._at

    def begin(self, now: float) -> int:
        """All servers are asked to write: the generation's number."""
        self.missing, self.error, self.started, self._at = set(self._servers), None, now, None
        return self.generation

    def begin_last(self) -> bool:
        """No push comes after this: whether the last generation can begin at once, or follows the one under way."""
        self._last = True
        self._stale = self.missing is not None
        return not self._stale

    def overdue(self, now: float) -> bool:
        """Whether the last generation takes too long."""
        return self._last and self.missing is not None and now - self.started > LAST_SAVE_SECONDS

    def viewed(self, old: View, new: View) -> bool:
        """There is a new view: its servers write the next one. Whether shards have moved while the one under way was
        written; it has to be given up then, which does not count as a failure.
        """
        self._servers = new.servers
        moved = bool(self.missing) and (old.servers, old.ring) != (new.servers, new.ring)
        self._stale = self._stale or moved
        return moved

    def written(self, server: int, generation: int, error: str | None) -> bool:
        """A server has written its part, or says why not; True when it was the last to do so."""
        if self.missing is None or generation != self.generation:
            return False
        self.missing.discard(server)
        self.error = self.error or error
        return not self.missing

    def end(self, error: str | None, now: float) -> Next:
        """The generation is complete, or it failed."""
        self.missing = None
        self.generation += 1
        stale, self._stale = self._stale, False
        if error is None:
            if self._last:
                return Next.AGAIN if stale else Next.OVER
            self.begin_periods(now)
            return Next.LATER
        if not self._last:
            self._at = now + min(RETRY_SECONDS, self._every)
            return Next.LATER
        self._failures += not stale
        if self._failures >= LAST_RETRIES:
            return Next.LOST
        self._at = now + LAST_RETRY_SECONDS
        return Next.LATER
