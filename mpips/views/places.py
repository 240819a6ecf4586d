"""Where the workers of each group stand: a place is known by its identity, the number of its first worker. Pure.

What belongs to a place and not to a rank goes to whoever takes it over: rows that are kept, parts of sums, the pushes
of a program that is run again.
"""

from mpips.views.view import View


class Places:
    """Those of a view, quick to look up."""

    def __init__(self, view: View) -> None:
        self.viewed(view)

    def viewed(self, view: View) -> None:
        """There is a new view."""
        self._workers = {
            group: dict(zip(view.identities[group], workers, strict=True)) for group, workers in view.groups.items()
        }
        self._groups = {worker: group for group, workers in view.groups.items() for worker in workers}
        self._places = {worker: place for places in self._workers.values() for place, worker in places.items()}

    def of(self, worker: int) -> int:
        """The place of a worker."""
        return self._places[worker]

    def group(self, rank: int) -> str | None:
        """The group that a rank works in, if it does."""
        return self._groups.get(rank)

    def workers(self, group: str) -> dict[int, int]:
        """The workers of a group by place, in order."""
        return self._workers[group]
