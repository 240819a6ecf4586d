"""How a process comes to a running job, as it sees that itself; `births` is how the others do."""

from mpips.fabric import Fabric
from mpips.messages import FromScheduler, Message, NewView, decode
from mpips.plan import Plan
from mpips.rank.rank import Rank
from mpips.views.view import View


def join(fabric: Fabric, plan: Plan, mpi: str = "") -> Rank:
    """The rank of a process that has come to a running job, when its first view is there.

    Raises
    ------
    PeerLost
        when its parent dies before.
    Deadline
        when no view comes.
    """
    early: list[tuple[int, Message]] = []
    views: list[View] = []

    def note(source: int, message: Message) -> None:
        early.append((source, message))
        said = decode(message.message) if isinstance(message, FromScheduler) else None
        if isinstance(said, NewView):
            views.append(said.view)

    fabric.on_unknown = note
    parent = fabric.parent
    fabric.wait(lambda: bool(views), "its first view", lambda: set() if parent is None else {parent})
    rank = Rank(fabric, views[0], plan, mpi=mpi)
    for source, message in early:
        fabric.dispatch(source, message)
    return rank
