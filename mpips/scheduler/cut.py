"""A cut through what workers push: what comes before it is in a generation, what comes after it is not. Pure.

What belongs to a workload comes before or after the cut as that was handed out before or after; for all else that a
worker pushes it says itself where it is. So nobody stops: whoever pushes goes on, and servers tell by the push. The cut
is made when all that comes before it has been applied (Lai and Yang 1987; Chandy and Lamport 1985).
"""

from collections.abc import Callable, Iterable
from typing import Any


class Cut:
    """A cut that is being made.

    Parameters
    ----------
    progress : what is done once all is done that comes before it.
    workloads : the numbers of those that come before it and are not done.
    workers : those that have to say when they have crossed it.
    """

    def __init__(self, progress: dict[str, Any], workloads: set[int], workers: Iterable[int]) -> None:
        self._progress = progress
        self._workloads = workloads
        self._workers = set(workers)
        self._examples = 0

    def done(self, workload: int, rows: int) -> None:
        """A workload of so many rows is done."""
        if workload in self._workloads:
            self._workloads.remove(workload)
            self._examples += rows

    def crossed(self, worker: int) -> None:
        """All is acknowledged that a worker has pushed before the cut."""
        self._workers.discard(worker)

    def loses(self, workers: Iterable[int]) -> bool:
        """Whether these workers, which are gone, may have left something undone that comes before the cut."""
        return not self._workers.isdisjoint(workers)

    def is_made(self, is_open: Callable[[int], bool]) -> bool:
        """Whether all that comes before it is applied; `is_open` says whether a workload will be done some day."""
        self._workloads = {number for number in self._workloads if is_open(number)}
        return not self._workloads and not self._workers

    @property
    def progress(self) -> dict[str, Any]:
        """What is done at the cut, and how many examples that are."""
        return {**self._progress, "examples": self._progress["examples"] + self._examples}
