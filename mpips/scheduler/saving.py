"""When the next generation is due, who still writes it, and what follows when it fails. Pure."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from mpips.messages import Checkpoint, CutOver
from mpips.scheduler.cut import Cut
from mpips.scheduler.effects import Complete, Discard, Effects
from mpips.table import TableSpec
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
    progress : what is done now, which goes into a generation.
    effects : takes messages, events, and generations to complete.
    cut : called with a generation's number, begins the cut that makes it; None: servers write what they have when each
        comes to it.

    Attributes
    ----------
    tables : the job's, once they are made.
    missing : servers that still write; None when no generation is under way.
    error : what went wrong with the last one, if anything did.
    base : the newest complete one, which the next goes on from; 0: it is to hold everything.
    cut : the cut that is being made; None when there is none.
    crossed : the generation of the newest cut that was ever begun; 0: none.
    """

    def __init__(
        self,
        servers: Sequence[int],
        every: float,
        generation: int,
        progress: Callable[[], dict[str, Any]],
        effects: Effects,
        cut: Callable[[int], Cut] | None = None,
    ) -> None:
        self.cut: Cut | None = None
        self.crossed = 0
        self.tables: list[TableSpec] = []
        self.missing: set[int] | None = None
        self.error: str | None = None
        self.base = 0
        self._worn = 0
        self._generation = generation  # the one under way, or the next
        self._started = 0.0
        self._progress = progress
        self._begin_cut = cut
        self._done: dict[str, Any] = {}  # when the one under way began
        self._effects = effects
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

    def begin(self, now: float) -> None:
        """Begin a generation: with a cut, if it is to be one; not the last, which no push comes after."""
        self.error, self._started, self._at = None, now, None
        if self._begin_cut is None or self._last:
            self._write(self._progress(), cut=False)
        else:
            self.crossed = self._generation
            self.cut = self._begin_cut(self._generation)

    def cut_made(self) -> None:
        """All is applied that comes before the cut."""
        assert self.cut is not None
        self._write(self.cut.progress, cut=True)
        self.cut = None

    def _write(self, progress: dict[str, Any], cut: bool) -> None:
        """Have all servers write."""
        self.missing, self._done = set(self._servers), progress
        for server in self._servers:
            self._effects.send(server, Checkpoint(self._generation, self.base, self._worn, cut))

    def begin_last(self) -> bool:
        """No push comes after this: whether the last generation can begin at once, or follows the one under way."""
        self._last = True
        self._stale = self.missing is not None
        self.cut = None
        return not self._stale

    def overdue(self, now: float) -> bool:
        """Whether the last generation takes too long."""
        return self._last and self.missing is not None and now - self._started > LAST_SAVE_SECONDS

    def viewed(self, old: View, new: View) -> str | None:
        """There is a new view: its servers write the next one. Why the one under way has to be given up, which does not
        count as a failure; or None.
        """
        self._servers = new.servers
        moved = (old.servers, old.ring) != (new.servers, new.ring)
        if self.cut is not None and self.cut.loses(set(old.workers) - set(new.workers)):
            reason = "a worker is gone that had not crossed the cut"
        elif moved and (self.missing or self.cut is not None):
            reason = "shards have other servers now"
        else:
            reason = None
        self._stale = self._stale or reason is not None
        if moved or reason is not None:
            self._cut_over()
        return reason

    def _cut_over(self) -> None:
        """Whatever servers have learnt of the newest cut, or will: it is not written any more."""
        for server in self._servers if self.crossed else ():
            self._effects.send(server, CutOver(self.crossed))

    def written(self, server: int, generation: int, error: str | None, now: float) -> Next:
        """A server has written its part, or says why not; when it was the last to do so, the generation is to be
        completed, or has failed.
        """
        if self.missing is None or generation != self._generation:
            return Next.LATER
        self.missing.discard(server)
        self.error = self.error or error
        if self.missing:
            return Next.LATER
        if self.error is not None:
            return self.end(self.error, now)
        self._effects.wanted.append(Complete(generation, self.base, list(self._servers), self.tables, self._done))
        return Next.LATER

    def end(self, error: str | None, now: float, worn: int = 0) -> Next:
        """The generation is complete, or it failed; what was written before `worn` should be written again."""
        self._worn = worn
        if error is None:
            self.base = self._generation
            self._effects.log("checkpoint", generation=self._generation, seconds=now - self._started)
        else:
            self._effects.log("checkpoint failed", generation=self._generation, error=error)
            self._effects.wanted.append(Discard(self._generation))
        self.missing, self.error, self.cut = None, error, None
        self._generation += 1
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
