"""The tasks that a rank has issued: numbers them, sends each when its time has come, takes the replies.

A dependency is honoured by the receiver where it can be: when every rank that a task goes to was also asked to do the
tasks before it, which are of one lane, their times are sent along, and it is sent at once. Else the caller holds it
back.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from mpips.fabric import ArenaFull, Fabric
from mpips.messages import CallReply, PullReply, PushReply, Refused, ShardsReply, SumReply, Taken
from mpips.tasks.afterwards import Afterwards
from mpips.tasks.lane import Lane
from mpips.tasks.task import Task, TaskLost, TaskRefused, UnknownTask

T = TypeVar("T")
Answer = PushReply | PullReply | ShardsReply | CallReply | SumReply
LeftInArena = PullReply | ShardsReply
SendIt = Callable[[int, list[int]], None]  # of time, and the times that it comes after
OnReply = Callable[[int, Any], None]  # of source and message


class Issued:
    """One for each rank that issues tasks.

    Attributes
    ----------
    fabric : the rank's.
    afterwards : runs what waits for the end of a task.
    is_read : says whether somebody still reads what lies in the arena besides; then room will come, too.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.afterwards = Afterwards()
        self.is_read: Callable[[], bool] = lambda: False
        self._time = 0
        self._open: dict[int, Task[Any]] = {}
        self._withdrawn: dict[
            int, tuple[set[int], OnReply]
        ] = {}  # by time: whose answers may still come, who takes them
        self._personal: set[Task[Any]] = set()  # those of the open ones that nobody but their peers can do
        self._lost: set[int] = set()  # ranks that no view gives anything to do any more
        for kind in (PushReply, PullReply, ShardsReply, CallReply, SumReply):
            fabric.on(kind, self._answered)
        fabric.on(Refused, self._refused)

    def known(self, tasks: Iterable[Any]) -> list[Task[Any]]:
        """These tasks, if they are tasks of this rank.

        Raises
        ------
        UnknownTask
            when one of them is not.
        """
        listed = list(tasks)
        for task in listed:
            if not isinstance(task, Task) or task._issued is not self:
                raise UnknownTask(f"rank {self.fabric.rank} has issued no such task to come after: {task!r}")
        return listed

    def when(self, task: Task[Any], run: Callable[[], None], after: Iterable[Task[Any]]) -> None:
        """Call `run` once every task of `after` is finished; a predecessor's error becomes the task's own."""
        task.before = self.known(after)

        def attempt() -> None:
            for other in task.before:
                if not other.finished:
                    other.on_end(attempt)
                    return
            error = next((other.error for other in task.before if other.error is not None), None)
            if error is not None:
                task.finish(None, error)
            else:
                task.sent = True
                run()

        attempt()

    def issue(
        self,
        task: Task[Any],
        peers: Iterable[int],
        send: SendIt,
        after: Iterable[Task[Any]] = (),
        on_reply: OnReply | None = None,
        lane: Lane | None = None,
        personal: bool = False,
        queued: bool = True,
    ) -> None:
        """Send a task to its peers, once what it comes after is finished, or the peers can see to that.

        Parameters
        ----------
        send : sends the messages, given the task's time and the times of the tasks that it comes after.
        on_reply : takes each peer's reply, and calls `received` when it has read it; None: a reply is enough.
        lane : tasks of one lane are sent in the order in which they were issued, and peers can see to what comes after
            them in this lane.
        queued : whether it is one of the lane's tasks; else it may come after them, and peers can't see to what comes
            after it, since it may be asked of others at another time.
        personal : whether no other rank can do what a peer that dies has left; then the task fails.
        """
        task.on_reply = on_reply
        task.before = self.known(after)
        asked = set(peers)
        if personal:
            self._personal.add(task)
            task.on_end(lambda: self._personal.discard(task))
        task.kept_by = lane if queued else task
        queue = lane if queued else None
        if not task.before and (queue is None or not queue.queue):
            self._go(task, asked, send)
            return
        task.behind = queue.queue[-1].owner if queue is not None and queue.queue else None
        turn = queue.add(lambda: self._go(task, asked, send), task) if queue is not None else None

        def attempt() -> None:
            for other in task.before:
                kept = other.kept_by is lane and asked <= other.asked
                seen_to = other.time and kept and not other.waits_for_subtasks
                if not other.finished and not seen_to:
                    other.on_end(attempt)
                    return
            task.sent = True
            if turn is not None:
                turn.come()
            else:
                self._go(task, asked, send)

        attempt()

    def _go(self, task: Task[Any], asked: set[int], send: SendIt) -> None:
        task.behind = None
        error = next((other.error for other in task.before if other.error is not None), None)
        if error is not None:
            task.finish(None, error)
            return
        self._time += 1
        task.time, task.sent, task.asked, task.peers = self._time, True, asked, set(asked)
        self._open[task.time] = task
        send(task.time, [other.time for other in task.before if not other.finished])
        if task in self._personal and asked & self._lost:
            self._fail(task)

    def viewed(self, lost: Iterable[int]) -> None:
        """These ranks are dead: what only they could do fails."""
        self._lost = set(lost)
        for task in [task for task in self._open.values() if task in self._personal and task.peers & self._lost]:
            self._fail(task)

    def _fail(self, task: Task[Any]) -> None:
        """Of a task's peers some are dead, and nobody replies in their place."""
        for rank in sorted(task.peers & self._lost):
            task.fail(TaskLost(f"rank {rank} died before it had done task {task.time}, {task.what}"))
            if self.received(task, rank):
                task.finish(None)

    def room(self, size: int) -> int:
        """Offset of `size` bytes in the own arena; waits for tasks to end while it is full.

        Raises
        ------
        ArenaFull
            when it would be too small even if it were empty.
        """
        space = self.fabric.space
        try:
            return space.allocate(size)
        except ArenaFull:
            if not (self._open or self.is_read()):
                raise
        found: list[int] = []

        def fits() -> bool:
            try:
                found.append(space.allocate(size))
            except ArenaFull:
                if not (self._open or self.is_read()):
                    raise
                return False
            return True

        with self.afterwards.waiting():  # a task that ends gives its part of the arena back
            self.fabric.wait(
                fits, f"{size:,} bytes of the arena", lambda: set().union(*(t.peers for t in self._open.values()))
            )
        return found[0]

    def when_one_ends(self, then: Callable[[], None], besides: Collection[Task[Any]]) -> bool:
        """Call `then` when the oldest task that is under way has ended, of all but some; False when there is none."""
        oldest = next((task for task in self._open.values() if task not in besides), None)
        if oldest is not None:
            oldest.on_end(then)
        return oldest is not None

    # --- replies ----------------------------------------------------------------------------------------------------

    def _answered(self, source: int, message: Answer) -> None:
        task = self._open.get(message.time)
        if task is not None and source in task.peers:
            assert task.on_reply is not None
            task.on_reply(source, message)
        elif message.time in self._withdrawn:
            peers, on_reply = self._withdrawn[message.time]
            if source in peers:
                peers.discard(source)
                if not peers:
                    del self._withdrawn[message.time]
                on_reply(source, message)
        elif isinstance(message, LeftInArena):  # one that came twice
            self.fabric.send(source, Taken(message.time))

    def withdraw(self, task: Task[Any], asked: bool = True) -> None:
        """Forget that a task was sent: it will be issued again, at another time.

        Answers that are on their way still go to its `on_reply`, which must see that they are too late: filters need
        every answer. There are none if nobody was `asked` yet.
        """
        if self._open.pop(task.time, None) is not None and task.on_reply is not None and asked:
            self._withdrawn[task.time] = task.peers - self.fabric.lost, task.on_reply
        task.time, task.peers, task.sent = 0, set(), False

    def received(self, task: Task[Any], source: int) -> bool:
        """A peer has answered, and the answer has been read; True when it was the last."""
        task.peers.discard(source)
        if task.peers:
            return False
        del self._open[task.time]
        return True

    def _refused(self, source: int, message: Refused) -> None:
        task = self._open.get(message.time)
        if task is None or source not in task.peers:
            return
        task.fail(TaskRefused(f"rank {source} refused task {task.time}, {task.what}: {message.reason}"))
        if self.received(task, source):
            task.finish(None)
