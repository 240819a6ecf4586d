"""What the scheduler's state machine wants done, in order."""

from typing import Any, Literal, NamedTuple

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
    """These servers have each written what has changed since a generation `base`, or all if that is 0: complete this
    generation, and call `Scheduler.completed`.
    """

    generation: int
    base: int
    servers: list[int]
    tables: list[TableSpec]
    progress: dict[str, Any]


class Discard(NamedTuple):
    """This generation has failed: what is there of it takes room for nothing."""

    generation: int


class End(NamedTuple):
    """The job is over: "finished", "failed" or "interrupted"."""

    exit: str
    reason: str


class Answer(NamedTuple):
    """Answer the request of a name: "under way", "done" or "refused", and what or why."""

    name: str
    stage: Literal["under way", "done", "refused"]
    text: str


Effect = Send | Log | Complete | Discard | End | Answer


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

    def answer(self, name: str, stage: Literal["under way", "done", "refused"], text: str) -> None:
        """Have a request to the job answered."""
        self.wanted.append(Answer(name, stage, text))
