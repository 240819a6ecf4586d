"""A task: something asked of another rank. It goes on by itself; its caller asks `done` or `wait`s.

Li et al. 2014, section 3.3: "a task is issued by a remote procedure call … asynchronous: the caller can perform further
computation immediately"; tasks have subtasks, and come after others.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mpips.errors import Error
from mpips.fabric.base import TIMEOUT

if TYPE_CHECKING:
    from mpips.tasks.issued import Issued

T = TypeVar("T")

MOST_NAMED = 4  # tasks of a chain that a message names at each of its ends


class TaskRefused(Error, RuntimeError):
    """Another rank would not do a task; the text has its reason."""


class TaskLost(Error, ConnectionError):
    """A rank is dead that a task was asked of, and nobody else can do it; the text names the rank."""


class TaskCycle(Error, ValueError):
    """A task would have to wait for itself."""


class UnknownTask(Error, LookupError):
    """A task that comes after something that is not a task of the same rank."""


class Task(Generic[T]):
    """Made by whoever issues it: a push, a pull, a call.

    It is finished when what was asked is done, its reply is here, and its subtasks are finished.

    Attributes
    ----------
    time : number of the task, counted by its rank when it is sent; 0 before, and for what needs no message.
    what : what it is, for messages.
    asked : the ranks that it was sent to.
    peers : those of them whose reply is missing.
    before : tasks that it comes after, as long as it is not finished.
    behind : the task that was queued before it in its lane, as long as it is queued itself.
    kept_by : the lane in which its peers keep the order of what comes after it; None for that of no lane.
    sent : whether it is too late for it to come after anything else.
    """

    __slots__ = (
        "_done",
        "_error",
        "_finished",
        "_issued",
        "_on_end",
        "_result",
        "_subtasks",
        "asked",
        "before",
        "behind",
        "kept_by",
        "on_reply",
        "peers",
        "sent",
        "time",
        "what",
    )

    def __init__(self, issued: "Issued", what: str) -> None:
        self.time = 0
        self.what = what
        self.asked: set[int] = set()
        self.peers: set[int] = set()
        self.before: list[Task[Any]] = []
        self.behind: Task[Any] | None = None
        self.kept_by: Any = None
        self.sent = False
        self.on_reply: Callable[[int, Any], None] | None = None
        self._issued = issued
        self._subtasks: list[Task[Any]] = []
        self._result: Any = None
        self._error: Error | None = None
        self._done = False
        self._finished = False
        self._on_end: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<task {self.time or 'not sent'}, {self.what}{', finished' if self._finished else ''}>"

    # --- for whoever waits ------------------------------------------------------------------------------------------

    def done(self) -> bool:
        """Whether the task is finished; never blocks."""
        if not self._finished:
            self._issued.fabric.progress()
        return self._finished

    def wait(self, timeout: float = TIMEOUT) -> T:
        """The task's result: the pulled values, a function's reply, or None for a push.

        Raises
        ------
        Deadline
            after `timeout` seconds; the text names the task, and the ranks or tasks that are missing.
        PeerLost
            when one of those ranks is dead, unless the fabric is `patient`, as it is in a job.
        TaskRefused
            when one of them would not do it.
        TaskLost
            when one of them has died, and no other can do its part.
        """
        if not self._finished:
            self._issued.fabric.wait(lambda: self._finished, self.missing, lambda: self._missing_peers(), timeout)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[no-any-return]

    @property
    def finished(self) -> bool:
        """Whether the task has ended, as far as is known without looking for messages."""
        return self._finished

    @property
    def error(self) -> Error | None:
        """Why the task failed, if it did."""
        return self._error

    # --- the graph --------------------------------------------------------------------------------------------------

    def come_after(self, *others: "Task[Any]") -> None:
        """Have it come after more tasks; possible until it is sent.

        Raises
        ------
        TaskCycle
            when one of them waits for this one.
        UnknownTask
            for a task of another rank.
        RuntimeError
            when it is sent already.
        """
        if self.sent or self._finished:
            raise RuntimeError(f"{self!r} is sent already: it can't come after anything else")
        for other in self._issued.known(others):
            self._refuse_cycle(other, "comes after")
            self.before.append(other)

    def include(self, *subtasks: "Task[Any]") -> None:
        """Make these its subtasks: it is not finished before they are, and fails when one does.

        Raises
        ------
        TaskCycle, UnknownTask
            as `come_after`.
        RuntimeError
            when it is finished already.
        """
        if self._finished:
            raise RuntimeError(f"{self!r} can't have more subtasks")
        for subtask in self._issued.known(subtasks):
            self._refuse_cycle(subtask, "includes")
            self._subtasks.append(subtask)

    def _refuse_cycle(self, other: "Task[Any]", link: str) -> None:
        comes_from: dict[Task[Any], Task[Any]] = {}
        found, left = {other}, [other]
        while left:
            task = left.pop()
            if task is self:
                break
            for needed in task._needs():
                if needed not in found:
                    found.add(needed)
                    left.append(needed)
                    comes_from[needed] = task
        if self not in found:
            return
        ring: list[Task[Any]] = [self]
        while ring[-1] is not other:
            ring.append(comes_from[ring[-1]])
        names = " → ".join(task.what for task in [self, *reversed(ring)])
        raise TaskCycle(f"{self!r} {link} {other!r}, which waits for it: {names}")

    def _needs(self) -> "list[Task[Any]]":
        """The tasks that it waits for."""
        before = [] if self._done else self.before
        behind = [self.behind] if self.behind is not None and not self.behind.time else []
        return [task for task in (*before, *behind, *self._subtasks) if not task._finished]

    @property
    def waits_for_subtasks(self) -> bool:
        """Whether any of its subtasks is not finished."""
        return any(not task._finished for task in self._subtasks)

    def missing(self) -> str:
        """What the task still needs, for messages."""
        chain, task = [], self
        while not task.peers and (needed := task._needs()):
            name = f"task {task.time}, {task.what}"
            chain.append(f"the subtask of {name}" if needed[0] in task._subtasks else f"what {name}, comes after")
            task = needed[0]
        if len(chain) > 2 * MOST_NAMED:
            chain[MOST_NAMED:-MOST_NAMED] = [f"{len(chain) - 2 * MOST_NAMED:,} tasks more"]
        ranks = f", from rank {', '.join(str(peer) for peer in sorted(task.peers))}" if task.peers else ""
        return ": ".join([*chain, f"task {task.time}, {task.what}{ranks}"])

    def _missing_peers(self) -> set[int]:
        found, left = {self}, [self]
        for task in left:
            new = [needed for needed in task._needs() if needed not in found]
            found.update(new)
            left += new
        return set().union(*(task.peers for task in left))

    # --- for whoever issues -----------------------------------------------------------------------------------------

    def on_end(self, then: Callable[[], None]) -> None:
        """Have `then` called when the task ends, which it has not yet."""
        self._on_end.append(then)

    def fail(self, error: Error) -> None:
        """Note why the task fails; it ends when all replies are there."""
        self._error = self._error or error

    def finish(self, result: T, error: Error | None = None) -> None:
        """What was asked is done; the task ends now, or with the last of its subtasks.

        One that a peer refused ends with that error whatever the others answered.
        """
        self._result, self._done = result, True
        self._error = self._error or error
        self._end_if_over()

    def _end_if_over(self) -> None:
        waiting = next((task for task in self._subtasks if not task._finished), None)
        if waiting is not None:
            waiting.on_end(self._end_if_over)
            return
        if self._subtasks and self._error is None:
            self._error = next((task._error for task in self._subtasks if task._error is not None), None)
        self._finished = True
        self.before.clear()
        ends, self._on_end = self._on_end, []
        self._issued.afterwards.run(ends)
