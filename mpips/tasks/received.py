"""The tasks that others have asked of this rank: each is begun once the tasks that it comes after are done here."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

from mpips.fabric import Fabric
from mpips.messages import Refused
from mpips.tasks.afterwards import Afterwards
from mpips.tasks.lane import Lane

FAILURES_REMEMBERED = 1024


_Key = tuple[int, int]  # source and time


class _Failure(NamedTuple):
    """Which task failed at first, and why."""

    time: int
    reason: str


class Received:
    """One for each rank that takes tasks.

    A task is known by its source and its time; the times of a source only grow, so a time that is not open any more is
    done.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._open: dict[_Key, list[Callable[[], None]]] = {}
        self._failed: dict[_Key, _Failure] = {}
        self._lanes: dict[Hashable, Lane] = {}
        self._afterwards = Afterwards()

    def take(
        self, source: int, time: int, after: list[int], run: Callable[[], None], lane: Hashable | None = None
    ) -> None:
        """Have `run` called once the tasks of `source` with the times `after` are done here; then call `done`.

        Tasks of one lane are begun in the order in which they came. A repetition of one that is under way is left
        out: its answer is still to come.
        """
        key = (source, time)
        if key in self._open:
            return
        self._open[key] = []
        if not after and lane is None:
            run()
            return
        queue = self._lanes.get(lane)
        if not after and (queue is None or not queue.queue):
            run()
            return
        unknown = [other for other in after if other >= time]
        if unknown:
            self.refuse(source, time, f"it comes after task {unknown[0]}, which rank {source} has not asked for here")
            return
        if lane is not None and queue is None:
            queue = self._lanes[lane] = Lane()
        turn = queue.add(lambda: self._begin(key, after, run)) if queue is not None else None
        begin = turn.come if turn is not None else lambda: self._begin(key, after, run)
        left = [(source, other) for other in after if (source, other) in self._open]
        if not left:
            begin()
            return
        missing = [len(left)]

        def one() -> None:
            missing[0] -= 1
            if missing[0] == 0:
                begin()

        for other in left:
            self._open[other].append(one)

    def _begin(self, key: _Key, after: list[int], run: Callable[[], None]) -> None:
        for other in after:
            failure = self._failed.get((key[0], other))
            if failure is not None:
                self._refuse(key, failure, f"it comes after task {failure.time}, which failed: {failure.reason}")
                return
        run()

    def done(self, source: int, time: int) -> None:
        """The task is done, and replied to; those that come after it may begin."""
        self._afterwards.run(self._open.pop((source, time)))

    def refuse(self, source: int, time: int, reason: str) -> None:
        """The task can't be done: say so; those that come after it fail too."""
        self._refuse((source, time), _Failure(time, reason), reason)

    def _refuse(self, key: _Key, failure: _Failure, reason: str) -> None:
        self._failed[key] = failure
        if len(self._failed) > FAILURES_REMEMBERED:
            del self._failed[next(iter(self._failed))]
        self._fabric.send(key[0], Refused(key[1], reason))
        self.done(*key)
