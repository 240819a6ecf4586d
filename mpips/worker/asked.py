"""What servers were asked to answer, and how to ask it again of those that have the shards in a later view."""

from collections.abc import Callable
from typing import Any

from mpips.tasks import Issued, Task


class Asked:
    """Of one table of a worker.

    Parameters
    ----------
    issued : this worker's.
    lost : ranks that are dead.

    Attributes
    ----------
    lost : as above, in the view in force.
    """

    def __init__(self, issued: Issued, lost: set[int]) -> None:
        self.lost = lost
        self._issued = issued
        self._asking: dict[Task[Any], Callable[[], None]] = {}

    def ask(self, task: Task[Any], ask: Callable[[], None]) -> None:
        """Begin what servers are to answer, in a way that can be repeated."""
        self._asking[task] = ask
        task.on_end(lambda: self._drop(task))
        ask()

    def again(self, task: Task[Any]) -> None:
        """Ask anew for a task: the servers have other shards than when it was asked for."""
        self._issued.withdraw(task, asked=False)
        self._asking[task]()

    def viewed(self, changed: set[int], lost: set[int]) -> None:
        """There is another view: what servers have not answered that have other shards now, or are dead, is asked
        again.
        """
        self.lost = lost
        for task, ask in list(self._asking.items()):
            if task.finished:
                del self._asking[task]
            elif task.peers & (changed | lost):
                self._issued.withdraw(task)
                ask()

    def _drop(self, task: Task[Any]) -> None:
        self._asking.pop(task, None)
