"""What the scheduler's state machine wants done, in order."""

from typing import Any, NamedTuple

from mpips.messages import Message
from mpips.table import TableSpec


class Send(NamedTuple):
    """Send a message."""

    dest: int
    message: Message


class Log(NamedTuple):
    """Write an event to the log of the run."""

    event: dict[str, Any]


class Complete(NamedTuple):
    """Every server has written its part: complete the generation, and call `Scheduler.completed`."""

    generation: int
    tables: list[TableSpec]
    progress: dict[str, Any]


class End(NamedTuple):
    """The job is over: "finished", "failed" or "interrupted"."""

    exit: str
    reason: str


Effect = Send | Log | Complete | End


class Effects:
    """Collects them.

    Attributes
    ----------
    wanted : those that are not carried out yet.
    """

    def __init__(self) -> None:
        self.wanted: list[Effect] = []

    def send(self, dest: int, message: Message) -> None:
        """Have a message sent."""
        self.wanted.append(Send(dest, message))

    def log(self, event: str, **fields: Any) -> None:
        """Have an event written to the log of the run."""
        self.wanted.append(Log({"event": event, **fields}))
