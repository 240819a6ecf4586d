"""The range vector clock of a table on a server: how far each worker's pushes are applied, by key range. Pure.

The pushes of a worker to a table have numbers that only grow, their steps (see `mpips.worker.steps`); a worker is known
by its identity, which another may take over. Neighbouring positions that are at the same step share one range, so a
clock is as large as its workers' pushes are different, not as the table (Li et al. 2014, section 4.1 and Algorithm 2).
Positions are rows of a dense table, shards of a sparse one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from mpips.errors import Error

Entry = tuple[int, int, int, int]  # a worker's identity, lo, hi, step


class ClockError(Error, ValueError):
    """A range that a clock does not have, or two clocks that are not of one table."""


class _Ranges:
    """One worker's steps: ``steps[i]`` on the range ``[bounds[i], bounds[i + 1])``; neighbours always differ."""

    __slots__ = ("bounds", "steps")

    def __init__(self, size: int) -> None:
        self.bounds = [0, size]
        self.steps = [0]

    def between(self, lo: int, hi: int) -> tuple[int, int]:
        """The ranges first..last-1 that ``[lo, hi)`` touches."""
        first = bisect_right(self.bounds, lo) - 1
        return first, bisect_left(self.bounds, hi, first + 1)

    def least(self, lo: int, hi: int) -> int:
        """The least step on ``[lo, hi)``."""
        if len(self.steps) == 1:
            return self.steps[0]
        first, last = self.between(lo, hi)
        return min(self.steps[first:last])

    def raise_to(self, lo: int, hi: int, step: int) -> None:
        """Make every step on ``[lo, hi)`` at least this one."""
        bounds, steps = self.bounds, self.steps
        first, last = self.between(lo, hi)
        if last - first == 1:
            if steps[first] >= step:
                return
            joins = (first > 0 and steps[first - 1] == step) or (last < len(steps) and steps[last] == step)
            if not joins and bounds[first] == lo and bounds[last] == hi:
                steps[first] = step
                return
        self._change(lo, hi, step, least=True)

    def put(self, lo: int, hi: int, step: int) -> None:
        """Make every step on ``[lo, hi)`` this one."""
        self._change(lo, hi, step, least=False)

    def _change(self, lo: int, hi: int, step: int, least: bool) -> None:
        bounds, steps = self.bounds, self.steps
        first, last = self.between(lo, hi)
        before, after = max(first - 1, 0), min(last + 1, len(steps))  # neighbours may become one with what changes
        new_bounds: list[int] = []
        new_steps: list[int] = []

        def put(start: int, step: int) -> None:
            if not new_steps or new_steps[-1] != step:
                new_bounds.append(start)
                new_steps.append(step)

        for i in range(before, after):
            start, old = bounds[i], steps[i]
            if start < lo:
                put(start, old)
            if first <= i < last:
                put(max(start, lo), max(old, step) if least else step)
            if bounds[i + 1] > hi:
                put(max(start, hi), old)
        bounds[before:after] = new_bounds
        steps[before:after] = new_steps


class RangeClock:
    """What was pushed and applied, by worker and range of positions; nothing at first.

    Parameters
    ----------
    size : positions of the table, 0..size-1.

    Raises
    ------
    ClockError
        by every method that takes a range ``[lo, hi)``, when that is empty or not within the table.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._workers: dict[int, _Ranges] = {}

    def time(self, worker: int, lo: int, hi: int) -> int:
        """The least step that a worker is at on ``[lo, hi)``; 0 where it pushed nothing."""
        self._check(lo, hi)
        ranges = self._workers.get(worker)
        return ranges.least(lo, hi) if ranges else 0

    def fresh(self, worker: int, lo: int, hi: int, step: int) -> list[tuple[int, int]]:
        """The parts of ``[lo, hi)`` where a worker's push of this step was not applied, in order and joined.

        None of it: the push is a repetition.
        """
        self._check(lo, hi)
        ranges = self._workers.get(worker)
        if ranges is None:
            return [(lo, hi)]
        first, last = ranges.between(lo, hi)
        parts: list[tuple[int, int]] = []
        for i in range(first, last):
            if ranges.steps[i] >= step:
                continue
            start, end = max(ranges.bounds[i], lo), min(ranges.bounds[i + 1], hi)
            if parts and parts[-1][1] == start:
                start = parts.pop()[0]
            parts.append((start, end))
        return parts

    def advance(self, worker: int, lo: int, hi: int, step: int) -> None:
        """A worker's push of this step is applied on ``[lo, hi)``; where it is further already it stays so."""
        self._check(lo, hi)
        if worker not in self._workers:
            self._workers[worker] = _Ranges(self.size)
        self._workers[worker].raise_to(lo, hi, step)

    def complete(self, workers: Iterable[int], lo: int, hi: int, step: int) -> bool:
        """Whether every one of the workers is at this step, or beyond, on all of ``[lo, hi)``."""
        return all(self.time(worker, lo, hi) >= step for worker in workers)

    def ranges(self, worker: int) -> int:
        """How many ranges are kept for a worker, those in between where it pushed nothing included."""
        return len(self._workers[worker].steps) if worker in self._workers else 0

    def forget(self) -> None:
        """Back to nothing."""
        self._workers.clear()

    # --- handing over -----------------------------------------------------------------------------------------------

    def entries(self, lo: int = 0, hi: int | None = None) -> list[Entry]:
        """All that is known of ``[lo, hi)``, sorted; `advance` by each of them makes the same clock."""
        hi = self.size if hi is None else hi
        self._check(lo, hi)
        found = []
        for worker, ranges in sorted(self._workers.items()):
            first, last = ranges.between(lo, hi)
            for i in range(first, last):
                if ranges.steps[i] > 0:
                    start, end = max(ranges.bounds[i], lo), min(ranges.bounds[i + 1], hi)
                    found.append((worker, start, end, ranges.steps[i]))
        return found

    def assign(self, lo: int, hi: int, entries: Iterable[Entry]) -> None:
        """Know of ``[lo, hi)`` what these entries say, which lie within it, and nothing else."""
        self._check(lo, hi)
        for ranges in self._workers.values():
            ranges.put(lo, hi, 0)
        for entry in entries:
            self.advance(*entry)

    def _check(self, lo: int, hi: int) -> None:
        if not 0 <= lo < hi <= self.size:
            raise ClockError(f"range [{lo}, {hi}) is empty or not within the table's positions [0, {self.size})")
