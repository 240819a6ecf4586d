"""Registered Python functions, called on other ranks as tasks.

Li et al. 2014, section 3.3: a task may be "a user-defined function that the scheduler issues to any group of nodes". A
function that issues tasks itself may return them: they are its subtasks, and its reply comes when they are finished.
"""

import difflib
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from mpips.errors import Error
from mpips.messages import Call, CallReply
from mpips.tasks.issued import Issued
from mpips.tasks.received import Received
from mpips.tasks.task import Task

Function = TypeVar("Function", bound=Callable[[Any, Any], Any])

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {}


def function(called: Function) -> Function:
    """Register ``f(role, argument) -> reply`` under its own name, for `Conductor.call` and `Worker.call`.

    `role` is what the rank is: a `Worker`, `Server` or `DataServer`, or None for a rank that is none of these. The
    argument and the reply are anything that msgpack can hold; a task, or a list of tasks, as the reply makes these its
    subtasks. It runs when its rank next waits or looks for messages, and must not wait itself.
    """
    FUNCTIONS[called.__name__] = called
    return called


class Calls:
    """Carries out what others call on this rank.

    Parameters
    ----------
    received, issued : the rank's.
    role : what functions are given.
    """

    def __init__(self, received: Received, issued: Issued, role: Any = None) -> None:
        self._received = received
        self._fabric = issued.fabric
        self._issued = issued
        self._role = role
        self._begun = True
        self._early: list[tuple[int, Call]] = []
        self._fabric.on(Call, self._called)

    def serve(self, role: Any, begun: bool = True) -> None:
        """The rank has another role, which functions are given from now on; if it has not begun, they wait for
        `begin`.
        """
        self._role, self._begun = role, begun

    def begin(self) -> None:
        """The rank is ready for functions."""
        self._begun = True
        for source, message in self._early:
            self._called(source, message)
        self._early.clear()

    def _called(self, source: int, message: Call) -> None:
        if not self._begun:
            self._early.append((source, message))
            return
        self._received.take(source, message.time, message.after, lambda: self._run(source, message))

    def _run(self, source: int, message: Call) -> None:
        called = FUNCTIONS.get(message.function)
        if called is None:
            near = difflib.get_close_matches(message.function, FUNCTIONS, 1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; there are: {', '.join(FUNCTIONS) or 'none'}"
            self._received.refuse(source, message.time, f'no function "{message.function}" is registered{hint}')
            return
        try:
            reply = called(self._role, message.argument)
        except Exception as error:  # a user's function may raise anything; whoever called it is told
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = "" if isinstance(error, Error) else f" at {last.filename}:{last.lineno}"
            self._received.refuse(source, message.time, f"{type(error).__name__}{place}: {error}")
            return
        single = isinstance(reply, Task)
        subtasks = [reply] if single else reply
        if not (isinstance(subtasks, list) and subtasks and all(isinstance(each, Task) for each in subtasks)):
            self._answer(source, message, reply)
            return
        whole: Task[None] = Task(self._issued, f'function "{message.function}" for rank {source}')
        whole.include(*subtasks)

        def finished() -> None:
            if whole.error is not None:
                self._received.refuse(source, message.time, str(whole.error))
                return
            results = [_plain(each.wait()) for each in subtasks]
            self._answer(source, message, results[0] if single else results)

        whole.on_end(finished)
        whole.finish(None)

    def _answer(self, source: int, message: Call, reply: Any) -> None:
        try:
            self._fabric.send(source, CallReply(message.time, reply))
        except (TypeError, ValueError, OverflowError) as error:  # msgpack has no such thing
            problem = f'the reply of function "{message.function}" does not fit into a message: {error}'
            self._received.refuse(source, message.time, problem)
        else:
            self._received.done(source, message.time)


def _plain(result: Any) -> Any:
    """A subtask's result as a message can hold it."""
    return result.tolist() if hasattr(result, "tolist") else result


def call(
    issued: Issued, ranks: Sequence[int], name: str, argument: Any, after: Iterable[Task[Any]] = ()
) -> Task[list[Any]]:
    """Call a registered function on some ranks.

    Returns
    -------
    Task
        whose result is the list of replies, in the order of `ranks`. It fails when one of them dies before it replies.
    """
    task: Task[list[Any]] = Task(issued, f'function "{name}" on ranks {", ".join(map(str, ranks))}')
    replies: dict[int, Any] = {}

    def send(time: int, after: list[int]) -> None:
        for rank in ranks:
            issued.fabric.send(rank, Call(time, after, name, argument))

    def replied(source: int, message: CallReply) -> None:
        replies[source] = message.result
        if issued.received(task, source):
            task.finish([replies.get(rank) for rank in ranks])

    if ranks:
        issued.issue(task, ranks, send, after, replied, personal=True)
    else:
        issued.when(task, lambda: task.finish([]), after)
    return task
