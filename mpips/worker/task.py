"""Tasks: everything asked of another rank. A task goes on by itself; its caller asks `done` or `wait`s.

Li et al. 2014, section 3.4: "a task is issued by a remote procedure call … asynchronous: the caller can perform further
computation immediately".
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.fabric.base import TIMEOUT
from mpips.messages import PullReply, PushReply, Refused

T = TypeVar("T")


class TaskRefused(Error, RuntimeError):
    """A server would not do a task; the text has its reason."""


class Task(Generic[T]):
    """A push or a pull under way.

    Attributes
    ----------
    time : number of the task, counted by its worker when it is sent; 0 before.
    what : what it is, for messages.
    peers : the servers whose reply is missing.
    """

    __slots__ = ("_error", "_finished", "_on_end", "_on_reply", "_result", "_tasks", "peers", "time", "what")

    def __init__(self, tasks: "Tasks", what: str) -> None:
        self.time = 0
        self.what = what
        self.peers: set[int] = set()
        self._tasks = tasks
        self._result: Any = None
        self._error: Error | None = None
        self._finished = False
        self._on_reply: Callable[[int, PullReply], None] | None = None
        self._on_end: list[Callable[[], None]] = []

    def done(self) -> bool:
        """Whether the task is finished; never blocks."""
        if not self._finished:
            self._tasks.fabric.progress()
        return self._finished

    def wait(self, timeout: float = TIMEOUT) -> T:
        """The task's result: the pulled values, or None for a push.

        Raises
        ------
        Deadline
            after `timeout` seconds; the text names the task and the servers whose reply is missing.
        PeerLost
            when one of those servers is dead.
        TaskRefused
            when a server would not do it.
        """
        if not self._finished:
            self._tasks.fabric.wait(lambda: self._finished, self._describe, lambda: self.peers, timeout)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[no-any-return]

    def _describe(self) -> str:
        missing = ", ".join(str(peer) for peer in sorted(self.peers))
        return (
            f"task {self.time}, {self.what}, from rank {missing}"
            if missing
            else f"what task {self.time}, {self.what}, comes after"
        )

    def on_end(self, then: Callable[[], None]) -> None:
        """Have `then` called when the task ends, which it has not yet."""
        self._on_end.append(then)

    @property
    def finished(self) -> bool:
        """Whether the task has ended, as far as is known without looking for messages."""
        return self._finished

    @property
    def error(self) -> Error | None:
        """Why the task failed, if it did."""
        return self._error

    def finish(self, result: T, error: Error | None = None) -> None:
        """End the task; one that a server refused ends with that error whatever the others answered."""
        self._result, self._error, self._finished = result, self._error or error, True
        for then in self._on_end:
            then()
        self._on_end.clear()


class Tasks:
    """The tasks of one worker: numbers them, takes replies, starts those whose predecessors are finished."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self._time = 0
        self._open: dict[int, Task[Any]] = {}
        fabric.on(PushReply, self._replied)
        fabric.on(PullReply, self._answered)
        fabric.on(Refused, self._refused)

    def expect(
        self, task: Task[Any], peers: Iterable[int], on_reply: Callable[[int, PullReply], None] | None = None
    ) -> int:
        """The task is about to be sent to each of these servers, and will be answered by them: its time.

        Servers see a worker's times only grow, so that one which does not is a repetition.
        """
        self._time += 1
        task.time = self._time
        task.peers = set(peers)
        task._on_reply = on_reply
        self._open[task.time] = task
        return task.time

    def start(self, task: Task[Any], run: Callable[[], None], after: Sequence[Task[Any]]) -> None:
        """Call `run` as soon as every task of `after` is finished; a predecessor's error becomes the task's own."""
        waiting = [other for other in after if not other.finished]
        failed = next((other.error for other in after if other.error is not None), None)
        if failed is not None:
            task.finish(None, failed)
        elif not waiting:
            run()
        else:
            waiting[0].on_end(lambda: self.start(task, run, waiting))

    def room(self, size: int) -> int:
        """Offset of `size` bytes in the own arena; waits for pushes to be acknowledged while it is full.

        Raises
        ------
        ArenaFull
            when it would be too small even if it were empty.
        """
        space = self.fabric.space
        try:
            return space.allocate(size)
        except ArenaFull:
            if not self._open:
                raise
        found: list[int] = []

        def fits() -> bool:
            try:
                found.append(space.allocate(size))
            except ArenaFull:
                if not self._open:
                    raise
                return False
            return True

        self.fabric.wait(
            fits, f"{size:,} bytes of the arena", lambda: set().union(*(t.peers for t in self._open.values()))
        )
        return found[0]

    def _replied(self, source: int, message: PushReply) -> None:
        task = self._open[message.time]
        if self.received(task, source):
            task.finish(None)

    def _answered(self, source: int, message: PullReply) -> None:
        task = self._open[message.time]
        assert task._on_reply is not None
        task._on_reply(source, message)

    def received(self, task: Task[Any], source: int) -> bool:
        """A server has answered, and the answer has been read; True when it was the last."""
        task.peers.discard(source)
        if task.peers:
            return False
        del self._open[task.time]
        return True

    def _refused(self, source: int, message: Refused) -> None:
        task = self._open[message.time]
        task._error = TaskRefused(f"rank {source} refused task {task.time}, {task.what}: {message.reason}")
        if self.received(task, source):
            task.finish(None)
