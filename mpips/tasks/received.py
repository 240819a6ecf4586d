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


class _Open:
    """A task that is under way: the parts of it that were asked of this rank, and what waits for its end."""

    __slots__ = ("parts", "then")

    def __init__(self, part: int) -> None:
        self.parts = {part}
        self.then: list[Callable[[], None]] = []


class Received:
    """One for each rank that takes tasks.

    A task is known by its source and its time; the times of a source only grow, so a time that is not open any more is
    done. A task may come in parts, as when another rank that was asked for some of it has died.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._open: dict[_Key, _Open] = {}
        self._failed: dict[_Key, _Failure] = {}
        self._lanes: dict[tuple[Hashable, int], Lane] = {}
        self._reads: dict[tuple[Hashable, int], set[_Key]] = {}  # those that wait for tasks of a lane
        self._afterwards = Afterwards()

    def take(
        self,
        source: int,
        time: int,
        after: list[int],
        run: Callable[[], None],
        lane: tuple[Hashable, int] | None = None,
        part: int = 0,
        queued: bool = True,
    ) -> None:
        """Have `run` called once the tasks of `source` with the times `after` are done here; then call `done`.

        Tasks of one lane, a subject and a source, are begun in the order in which they came; one that is not `queued`
        only comes after some of them. A repetition of one that is under way is left out: its answer is still to come.
        """
        key = (source, time)
        known = self._open.get(key)
        if known is None:
            self._open[key] = _Open(part)
        elif part in known.parts:
            return
        else:
            known.parts.add(part)
        if not after and (lane is None or not queued):
            run()
            return
        queue = self._lanes.get(lane) if lane is not None and queued else None
        if not after and (queue is None or not queue.queue):
            run()
            return
        unknown = [other for other in after if other >= time]
        if unknown:
            reason = f"it comes after task {unknown[0]}, which rank {source} has not asked for here"
            self.refuse(source, time, reason, part)
            return
        if lane is not None and queued and queue is None:
            queue = self._lanes[lane] = Lane()
        turn = queue.add(lambda: self._begin(key, part, after, run), (key, part)) if queue is not None else None
        begin = turn.come if turn is not None else lambda: self._begin(key, part, after, run)
        left = [(source, other) for other in after if (source, other) in self._open]
        if not left:
            begin()
            return
        missing = [len(left)]
        reads = self._reads.setdefault(lane, set()) if lane is not None and not queued else None
        if reads is not None:
            reads.add(key)

        def one() -> None:
            missing[0] -= 1
            if missing[0] == 0 and part in self._parts(key):
                if reads is not None:
                    reads.discard(key)
                begin()

        for other in left:
            self._open[other].then.append(one)

    def _begin(self, key: _Key, part: int, after: list[int], run: Callable[[], None]) -> None:
        for other in after:
            failure = self._failed.get((key[0], other))
            if failure is not None:
                reason = f"it comes after task {failure.time}, which failed: {failure.reason}"
                self._refuse(key, part, failure, reason)
                return
        run()

    def done(self, source: int, time: int, part: int = 0) -> None:
        """The task, or this part of it, is done and replied to; those that come after it may begin."""
        known = self._open.get((source, time))
        if known is None:
            return
        known.parts.discard(part)
        if not known.parts:
            del self._open[source, time]
            self._afterwards.run(known.then)

    def drop(self, source: int, time: int, part: int) -> None:
        """A part will not be done: its source asks for it again, of this rank or another."""
        self.done(source, time, part)

    def _parts(self, key: _Key) -> set[int]:
        known = self._open.get(key)
        return known.parts if known is not None else set()

    def forget(self, source: int) -> None:
        """A source is dead: nothing that it asked for, and that is not begun, will be."""
        for key in [key for key in self._open if key[0] == source]:
            del self._open[key]
        for lanes in (self._lanes, self._reads):
            for lane in [lane for lane in lanes if lane[1] == source]:
                del lanes[lane]

    def leave(self, subject: Hashable) -> None:
        """Drop what waits in the lanes of a subject: its sources will ask for it again."""
        dropped = [(key, 0) for lane in self._reads if lane[0] == subject for key in self._reads[lane]]
        for lane in [lane for lane in self._lanes if lane[0] == subject]:
            dropped += [turn.owner for turn in self._lanes.pop(lane).queue]
        for key, part in dropped:
            self._parts(key).discard(part)
        for key, part in dropped:
            self.done(*key, part)
        for lane in [lane for lane in self._reads if lane[0] == subject]:
            del self._reads[lane]

    def refuse(self, source: int, time: int, reason: str, part: int = 0) -> None:
        """The task can't be done: say so; those that come after it fail too."""
        self._refuse((source, time), part, _Failure(time, reason), reason)

    def _refuse(self, key: _Key, part: int, failure: _Failure, reason: str) -> None:
        self._failed[key] = failure
        if len(self._failed) > FAILURES_REMEMBERED:
            del self._failed[next(iter(self._failed))]
        self._fabric.send(key[0], Refused(key[1], reason))
        self.done(*key, part)
