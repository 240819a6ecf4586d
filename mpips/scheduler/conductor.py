"""What a program on the scheduler's rank is handed: it issues functions to groups of ranks."""

from collections.abc import Iterable
from typing import Any

from mpips.tasks import Issued, Task
from mpips.tasks.calls import call
from mpips.views.view import View


class Conductor:
    """The scheduler as its program sees it; the program runs when all tables are there.

    Parameters
    ----------
    issued, view : this rank's.
    """

    def __init__(self, issued: Issued, view: View) -> None:
        self._issued = issued
        self._view = view

    def viewed(self, old: View, new: View) -> None:
        """There is a new view: groups may be of other ranks."""
        self._view = new

    def call(self, group: str, function: str, argument: Any = None, after: Iterable[Task[Any]] = ()) -> Task[list[Any]]:
        """Have every rank of a group run a registered function (`mpips.function`).

        Parameters
        ----------
        group : "workers", "servers", "data_servers", "spares", or a worker group's name.
        argument : anything that msgpack can hold.
        after : tasks of which every rank of the group must have done its own part before.

        Returns
        -------
        Task
            whose result is the list of replies, in order of rank; finished when all have replied and their subtasks
            are finished.

        Raises
        ------
        KeyError
            when there is no such group.
        """
        return call(self._issued, self._view.group(group), function, argument, after)
