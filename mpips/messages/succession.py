"""The scheduler may be followed by another rank: what is said to it and by it is numbered, and said again to and by its
successor; what comes in is a log that a standby holds.
"""

import msgspec

from mpips.messages.message import Message


class ToScheduler(Message, frozen=True):
    """Any rank → scheduler: the `number`-th thing that I say to whoever is the scheduler, encoded; I have heard the
    first `heard` that it said to me.
    """

    number: int
    heard: int
    message: bytes


class FromScheduler(Message, frozen=True):
    """Scheduler → any rank: the `number`-th thing that a scheduler says to you, encoded; the first `heard` that you
    said are safe.
    """

    number: int
    heard: int
    message: bytes


class SchedulerHeard(Message, frozen=True):
    """Any rank → scheduler: I have heard the first `number` things that it said to me."""

    number: int


class RankHeard(Message, frozen=True):
    """Scheduler → any rank: the first `number` things that you said are safe."""

    number: int


class Input(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what the scheduler's log holds; `time` is seconds on the scheduler's clock."""

    time: float


class Said(Input, frozen=True):
    """A rank has said its `number`-th thing, and heard the first `heard` of what it was told."""

    source: int
    number: int
    heard: int
    message: bytes


class Heard(Input, frozen=True):
    """A rank has heard the first `heard` things that it was told."""

    source: int
    heard: int


class Ticked(Input, frozen=True):
    """The time has come for something."""


class Died(Input, frozen=True):
    """A rank is dead; `silent`: it is taken for dead, since nothing was heard of it for too long."""

    rank: int
    silent: bool = False


class Interrupted(Input, frozen=True):
    """Someone wants the job to end."""

    reason: str


class Broken(Input, frozen=True):
    """Something is wrong on the scheduler's rank."""

    reason: str


class Completed(Input, frozen=True):
    """The generation is complete, or why it is not; what was written before the generation `worn` should be written
    again.
    """

    error: str | None
    worn: int = 0


class Scaled(Input, frozen=True):
    """Somebody asks, under a name, for so many servers and workers, and for so many spares more."""

    name: str
    servers: int | None
    workers: int | None
    spares: int | None = None


class TraceWanted(Input, frozen=True):
    """Somebody asks, under a name, to have what happens to keys of a table recorded, or to `stop` that."""

    name: str
    table: str
    keys: list[int]
    stop: bool


class Conducted(Input, frozen=True):
    """The scheduler's own program has returned."""


class Snapshot(Message, frozen=True):
    """Scheduler → standby: this is my state after the first `index` inputs. Of two snapshots the one of the later view
    counts.
    """

    view: int
    index: int
    state: bytes


class Inputs(Message, frozen=True):
    """Scheduler → standby: what has come in after the first `index` inputs; what followed from the first `done` has
    been done.
    """

    index: int
    done: int
    inputs: list[Said | Heard | Ticked | Died | Interrupted | Broken | Completed | Scaled | TraceWanted | Conducted]


class Mirrored(Message, frozen=True):
    """Standby → scheduler: I have the first `index` inputs."""

    index: int
