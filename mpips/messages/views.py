"""Views: who does what from now on, and how far each rank has come with that."""

from mpips.messages.message import Message
from mpips.views.view import View


class NewView(Message, frozen=True):
    """Scheduler → any rank: from now on this is who does what."""

    view: View


class ViewTaken(Message, frozen=True):
    """Any rank → scheduler: I act by this view."""

    number: int


class CopiesWhole(Message, frozen=True):
    """Server → scheduler: I have every shard that this view has me copy. `copied` are the bytes of copies, and of
    changes to copies on their way, that I have taken in all views.
    """

    number: int
    copied: int


class Drain(Message, frozen=True):
    """Scheduler → server: shards are to have other heads: apply no more pushes in this view, and say when all that you
    have applied is at every copy.
    """

    number: int


class Drained(Message, frozen=True):
    """Server → scheduler: it is."""

    number: int


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
