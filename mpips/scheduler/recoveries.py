"""What was lost and how the job went on: the stages of every recovery, for the log of the run. Pure."""

from dataclasses import dataclass

from mpips.scheduler.effects import Effects
from mpips.scheduler.tally import Tally


@dataclass
class Recovery:
    """One that is under way.

    Attributes
    ----------
    number : of the recovery.
    rank, role : what was lost.
    view : the first view without it.
    copied : bytes that the job had copied before.
    goes_on : whether what waited for it has been acknowledged.
    """

    number: int
    rank: int
    role: str
    view: int
    copied: int
    goes_on: bool = False


class Recoveries:
    """Of one job.

    Parameters
    ----------
    effects : takes the events.
    tally : knows how much has been copied.
    """

    def __init__(self, effects: Effects, tally: Tally) -> None:
        self._effects = effects
        self._tally = tally
        self._count = 0
        self._open: list[Recovery] = []

    def detected(self, rank: int, role: str) -> Recovery:
        """A rank is dead, or taken for dead."""
        self._count += 1
        recovery = Recovery(self._count, rank, role, 0, self._tally.all_copied)
        self._open.append(recovery)
        self._log(recovery, "detected", "")
        return recovery

    def viewed(self, recovery: Recovery, view: int, text: str) -> None:
        """There is a view without it, in which something was done about it."""
        recovery.view = view
        self._log(recovery, "view", text)

    def resumed(self, view: int) -> None:
        """A rank goes on with what it had to send or ask for again in a view."""
        for recovery in self.waiting():
            if recovery.role in ("server", "data server") and recovery.view <= view:
                self.goes_on(recovery)

    def waiting(self) -> list[Recovery]:
        """Those of which nothing is known to go on yet."""
        return [recovery for recovery in self._open if not recovery.goes_on]

    def under_way(self) -> list[Recovery]:
        """Those after which something is missing still."""
        return list(self._open)

    def goes_on(self, recovery: Recovery, text: str = "") -> None:
        """What waited for it is acknowledged."""
        recovery.goes_on = True
        self._log(recovery, "acknowledged", text)

    def whole(self, recovery: Recovery) -> None:
        """Nothing is missing any more."""
        self._open.remove(recovery)
        self._log(recovery, "whole", "", copied=self._tally.all_copied - recovery.copied)

    def _log(self, recovery: Recovery, stage: str, text: str, **more: int) -> None:
        self._effects.log(
            "recovery", stage=stage, recovery=recovery.number, rank=recovery.rank, role=recovery.role, text=text, **more
        )
