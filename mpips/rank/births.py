"""How a process comes to a running job, seen by the ranks that are there already.

The scheduler asks one of them, the parent, to start the process, its child. When that is ready, the parent introduces
it to every other rank, one after the other: only these two and the child wait for each other, for a millisecond, and
nobody else. When all know it the scheduler is told, and the child is a spare of the next view. If a rank dies before it
was introduced, the child does without it; if the child or the parent dies, nothing comes of it.
"""

from collections.abc import Callable

from mpips.fabric import Fabric, NoBirth
from mpips.line import Line
from mpips.messages import Bear, Born, Coming, Meet
from mpips.views.view import View

PATIENCE = 60.0  # seconds for a child to be ready, which has Python and numba to load


class Births:
    """One for each rank.

    Parameters
    ----------
    fabric, line : the rank's.
    view : tells who does what.
    """

    def __init__(self, fabric: Fabric, line: Line, view: Callable[[], View]) -> None:
        self._fabric = fabric
        self._line = line
        self._view = view
        self._child: int | None = None
        self._deadline = 0.0
        self._strangers: list[int] | None = None  # whom the child does not know yet, once it is ready
        fabric.on(Bear, self._bear)
        fabric.on(Meet, self._meet)
        fabric.on(Coming, self._introduce)

    def _bear(self, source: int, message: Bear) -> None:
        try:
            self._fabric.bear(message.rank)
        except NoBirth as problem:
            self._line.tell(Born(message.rank, str(problem)))
            return
        self._child = message.rank
        self._deadline = self._fabric.now() + PATIENCE
        self._strangers = None
        self._fabric.background.append(self._step)

    def _step(self) -> bool:
        """Go on when the child is ready, and when who is to come next has died."""
        fabric = self._fabric
        try:
            if self._strangers is None:
                if fabric.now() > self._deadline:
                    raise NoBirth(f"the new process was not ready after {PATIENCE:g} s")
                if not fabric.child_is_ready():
                    return False
                view = self._view()
                self._strangers = [rank for rank in range(len(view.nodes)) if rank not in view.lost]
                self._strangers.remove(fabric.rank)
                self._call_next()
            elif self._strangers and self._gone(self._strangers[0]):
                del self._strangers[0]
                self._call_next()
        except NoBirth as problem:
            self._end(str(problem))
        return False

    def _gone(self, rank: int) -> bool:
        return rank in self._fabric.lost or rank in self._view().lost

    def _call_next(self) -> None:
        assert self._strangers is not None
        assert self._child is not None
        while self._strangers and self._gone(self._strangers[0]):
            del self._strangers[0]
        if self._strangers:
            self._fabric.send(self._strangers[0], Meet(self._child))
        else:
            self._fabric.release_child()
            self._end()

    def _introduce(self, source: int, message: Coming) -> None:
        if message.rank != self._child or not self._strangers or source != self._strangers[0]:
            return
        try:
            self._fabric.introduce(message.rank, source)
            del self._strangers[0]
            self._call_next()
        except NoBirth as problem:
            self._end(str(problem))

    def _end(self, error: str | None = None) -> None:
        assert self._child is not None
        self._fabric.background.remove(self._step)
        if error is not None:
            self._fabric.abandon_child()
        self._line.tell(Born(self._child, error))
        self._child = None

    def _meet(self, source: int, message: Meet) -> None:
        self._fabric.send(source, Coming(message.rank))
        self._fabric.meet(message.rank, source)
