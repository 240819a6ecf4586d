"""The workloads that are handed out and not done: who has them, which are left by the dead, which run late. Pure."""

from bisect import insort
from collections import deque
from math import inf
from statistics import median
from typing import NamedTuple

from mpips.messages import Workload

LATE = 3.0  # times what a workload usually takes: a worker that shares its core with another takes twice as long
GRACE = 0.05  # seconds more: the hiccups of a machine, and twice the way there, are over by then
RECENT, FEWEST = 64, 5  # workloads that tell what is usual


class Late(NamedTuple):
    """A workload that runs late: who has it, since when, and how many seconds it usually takes."""

    workload: Workload
    holder: int
    since: float
    usual: float


class Outstanding:
    """A workload belongs to the identity that it was first given to, whoever does it.

    The batches of an identity are counted, 1, 2, 3, …, and servers take the pushes of each only after those of the one
    before. So of the workloads of an identity only the first may be at another worker.

    Attributes
    ----------
    cut : the newest cut, which what is handed out from now on comes after.
    """

    def __init__(self) -> None:
        self.cut = 0
        self._numbers = 0
        self._counters: dict[int, int] = {}  # batches that each identity was ever given
        self._workloads: dict[int, Workload] = {}
        self._lines: dict[int, list[int]] = {}  # numbers by identity, in order
        self._holders: dict[int, list[int]] = {}  # by number; nobody: it is left
        self._left: list[int] = []
        self._bequests: dict[int, list[int]] = {}  # numbers by the lost worker that has left them
        self._unwanted: set[int] = set()  # not done again, whatever happens to them
        self._queues: dict[int, list[int]] = {}  # numbers by worker, in the order in which it does them
        self._since: dict[int, float] = {}  # when a worker has begun with the first of its queue
        self._next_late: float | None = None  # when the first of them is late; None: not known
        self._recent: dict[bool, deque[float]] = {train: deque(maxlen=RECENT) for train in (False, True)}

    def __bool__(self) -> bool:
        """Whether a worker has any of them."""
        return any(self._holders.values())

    # --- handing out ------------------------------------------------------------------------------------------------

    def give(
        self,
        worker: int,
        identity: int,
        epoch: int,
        train: bool,
        part: int,
        batches: list[int],
        now: float,
        begun: float = 0.0,
    ) -> Workload:
        """Make a workload and hand it out to a worker, whose pushes count as this identity's, when a share of its epoch
        is `begun`.
        """
        self._numbers += 1
        first = self._counters.get(identity, 0) + 1
        self._counters[identity] = first + len(batches) - 1
        workload = Workload(self._numbers, epoch, train, part, batches, identity, first, self.cut, begun)
        self._workloads[workload.number] = workload
        self._lines.setdefault(identity, []).append(workload.number)
        self._holders[workload.number] = []
        self._hold(worker, workload.number, now)
        return workload

    def _hold(self, worker: int, number: int, now: float) -> None:
        self._next_late = None
        self._holders[number].append(worker)
        queue = self._queues.setdefault(worker, [])
        queue.append(number)
        if len(queue) == 1:
            self._since[worker] = now

    def again(self, worker: int, now: float) -> Workload | None:
        """Hand out what somebody has left, if there is any that can be done now."""
        for number in self._left:
            workload = self._workloads[number]
            if self._lines[workload.identity][0] == number:
                self._left.remove(number)
                self._hold(worker, number, now)
                return workload
        return None

    # --- running late -----------------------------------------------------------------------------------------------

    def _running(self) -> list[tuple[float, Late]]:
        """What only one worker has and is at, with the time at which it is late."""
        usual = {train: median(recent) for train, recent in self._recent.items() if len(recent) >= FEWEST}
        found = []
        for worker, queue in self._queues.items():
            number = queue[0]
            workload = self._workloads[number]
            alone = len(self._holders[number]) == 1
            if alone and workload.train in usual and number not in self._unwanted:
                since, seconds = self._since[worker], usual[workload.train] * len(workload.batches)
                found.append((since + LATE * seconds + GRACE, Late(workload, worker, since, seconds)))
        return found

    def late_at(self, now: float) -> float | None:
        """When the next workload will be late that is not yet."""
        return min((at for at, _ in self._running() if at > now), default=None)

    def late(self, worker: int, now: float) -> Late | None:
        """Hand out a second time what runs latest, to a worker that has nothing to do."""
        if worker in self._queues:
            return None
        if self._next_late is None:  # kept, since many may ask before anything changes
            self._next_late = min((at for at, _ in self._running()), default=inf)
        if now < self._next_late:
            return None
        late = [(at, late) for at, late in self._running() if at <= now]
        found = min(late, key=lambda each: (each[0], each[1].workload.number))[1]
        self._hold(worker, found.workload.number, now)
        return found

    # --- ending -----------------------------------------------------------------------------------------------------

    def done(self, worker: int, number: int, now: float) -> tuple[Workload, list[int]] | None:
        """Cross a finished workload off: with those who still do it, too; None when it was crossed off before."""
        if number not in self._workloads:
            return None
        self._next_late = None
        workload, holders = self._workloads[number], self._holders[number]
        if worker in holders and self._queues[worker][0] == number:
            self._recent[workload.train].append((now - self._since[worker]) / len(workload.batches))
        for holder in holders:
            self._take(holder, number, now)
        self._forget(number)
        return workload, [holder for holder in holders if holder != worker]

    def _take(self, holder: int, number: int, now: float) -> None:
        queue = self._queues[holder]
        if queue[0] == number:
            self._since[holder] = now
        queue.remove(number)
        if not queue:
            del self._queues[holder], self._since[holder]

    def _forget(self, number: int) -> None:
        workload = self._workloads.pop(number)
        line = self._lines[workload.identity]
        line.remove(number)
        if not line:
            del self._lines[workload.identity]
        del self._holders[number]
        self._unwanted.discard(number)
        if number in self._left:
            self._left.remove(number)

    def lost(self, worker: int) -> list[Workload]:
        """A worker is gone: what nobody has now is left to the others."""
        self._next_late = None
        self._since.pop(worker, None)
        left = []
        for number in self._queues.pop(worker, []):
            self._holders[number].remove(worker)
            if self._holders[number]:
                continue
            if number in self._unwanted:
                self._forget(number)
            else:
                insort(self._left, number)
                left.append(self._workloads[number])
        self._bequests[worker] = [workload.number for workload in left]
        return left

    def owed(self, worker: int) -> tuple[int, int]:
        """Of what a worker has left: how many nobody has taken on, and how many are not done."""
        numbers = [number for number in self._bequests.get(worker, ()) if number in self._workloads]
        return sum(not self._holders[number] for number in numbers), len(numbers)

    def is_open(self, number: int) -> bool:
        """Whether a workload is not done, and somebody may do it."""
        return number in self._workloads

    def to_train_on(self) -> list[Workload]:
        """What is not done of those that are trained on; done for nothing, or left to be done, too."""
        return [workload for workload in self._workloads.values() if workload.train]

    def close(self, epoch: int, train: bool) -> int:
        """Nobody waits for this epoch any more: forget what is left of it, let the rest be; how many batches in all."""
        numbers = [number for number, each in self._workloads.items() if (each.epoch, each.train) == (epoch, train)]
        batches = sum(len(self._workloads[number].batches) for number in numbers if number not in self._unwanted)
        self._next_late = None
        for number in numbers:
            if self._holders[number]:
                self._unwanted.add(number)
            else:
                self._forget(number)
        return batches
