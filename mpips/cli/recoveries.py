"""What a job lost and how it made up for it, put together from its log of events."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

STAGES = ("detected", "view", "acknowledged", "whole")
AFTERWARDS = STAGES[1:]
Event = dict[str, Any]


@dataclass
class Recovery:
    """The loss of a rank, as far as it is made up for.

    Attributes
    ----------
    number : of the recovery in this job.
    rank, role : who was lost.
    text : what was done about it, "" as long as nothing was.
    times : Unix time of each stage that was reached.
    """

    number: int
    rank: int
    role: str
    text: str = ""
    times: dict[str, float] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing any more."""
        return "whole" in self.times

    def after(self, stage: str) -> float | None:
        """Seconds from the detection to a stage; None when it was not reached."""
        if stage not in self.times or "detected" not in self.times:
            return None
        return max(0.0, self.times[stage] - self.times["detected"])

    def __str__(self) -> str:
        parts = [f"recovery {self.number}: {self.role} {self.rank}", *[self.text] * bool(self.text)]
        for stage in AFTERWARDS:
            seconds = self.after(stage)
            if seconds is not None:
                parts.append(f"{stage} after {duration(seconds)}")
        return " · ".join([*parts, *["…"] * (not self.is_whole)])


class Recoveries:
    """All of a job, by their numbers.

    Parameters
    ----------
    events : of its log.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._known: dict[int, Recovery] = {}
        for event in events:
            self.take(event)

    def take(self, event: Event) -> Recovery | None:
        """Take notice of an event; the recovery that it belongs to, None when it is of another kind."""
        number, stage, time = event.get("recovery"), event.get("stage"), event.get("time")
        if event.get("event") != "recovery" or not isinstance(number, int) or not isinstance(time, int | float):
            return None
        rank, role = event.get("rank"), str(event.get("role", "rank"))
        found = self._known.setdefault(number, Recovery(number, rank if isinstance(rank, int) else -1, role))
        if stage in STAGES:
            found.times.setdefault(stage, float(time))
        if isinstance(event.get("text"), str) and (stage == "view" or not found.text):
            found.text = event["text"]
        return found

    def all(self) -> list[Recovery]:
        """Every recovery, in order of their numbers."""
        return [recovery for _, recovery in sorted(self._known.items())]


def duration(seconds: float) -> str:
    """A time as people read it."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"
