"""Views: who does what from now on, and how far each rank has come with that."""

from mpips.messages.message import Message
from mpips.views.view import View


class NewView(Message, frozen=True):
    """Scheduler → any rank: from now on this is who does what."""

    view: View


class Bear(Message, frozen=True):
    """Scheduler → any rank that was there at the start: start a process on your node, which is to become this rank."""

    rank: int


class Meet(Message, frozen=True):
    """Parent of a rank that comes to the job → any other: it is to know you; say that you are coming, and come."""

    rank: int


class Coming(Message, frozen=True):
    """Any rank → parent of a rank that comes to the job: I am about to meet it."""

    rank: int


class Born(Message, frozen=True):
    """Parent → scheduler: the rank that I was to start knows all others that live; or why there is none."""

    rank: int
    error: str | None = None


class ViewTaken(Message, frozen=True):
    """Any rank → scheduler: I act by this view."""

    number: int


class CopiesWhole(Message, frozen=True):
    """Server → scheduler: I have every shard that this view has me copy, but for changes since."""

    number: int


class Drain(Message, frozen=True):
    """Scheduler → server: copies on their way are to count: apply no more pushes in this view, and say when all that
    you have applied is at every copy.
    """

    number: int


class Drained(Message, frozen=True):
    """Server → scheduler: it is. `copied` are the bytes that I have sent to copies on their way in all views."""

    number: int
    copied: int


class Release(Message, frozen=True):
    """Scheduler → server: all ranks have taken this view; give the shards back that you have no part in any more."""

    number: int


class Resumed(Message, frozen=True):
    """Worker → scheduler: the first push that had to be sent again for this view is acknowledged, or the first batch
    that had to be asked for again is there.
    """

    number: int


class Alive(Message, frozen=True):
    """Server, data server or standby → scheduler, scheduler → standby: I am at work."""
