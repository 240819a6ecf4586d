"""Sums over the workers of a group: the n-th part of each, added in the order of their places. Pure."""

from collections.abc import Callable

from mpips.messages import Refused, Sum, SumReply
from mpips.views.places import Places

Reply = tuple[int, SumReply | Refused]
Total = list[float] | str  # a text: why there is no sum


class Sums:
    """Takes parts in, gives the replies when a sum is complete.

    A worker that takes another's place, or is added, runs its program from the beginning and asks for the sums of the
    past again, in order: they are remembered while that may happen.

    Parameters
    ----------
    places : where the workers stand.
    may_begin_anew : whether anyone may still come to run a group's program from the beginning. Once it is not so it
        stays so.
    """

    def __init__(self, places: Places, may_begin_anew: Callable[[str], bool]) -> None:
        self._places = places
        self._may_begin_anew = may_begin_anew
        self._parts: dict[tuple[str, int], dict[int, tuple[int, Sum]]] = {}  # worker and its part, by place
        self._past: dict[str, dict[int, Total]] = {}

    def add(self, group: str, worker: int, part: Sum) -> list[Reply]:
        """Take a worker's part; the reply to every worker when it was the last one missing.

        Parts of different sizes are refused.
        """
        past = self._past.get(group, {}).get(part.number)
        if past is not None:
            return [(worker, _answer(past, part))]
        key = group, part.number
        self._parts.setdefault(key, {})[self._places.of(worker)] = worker, part
        return self._complete(*key)

    def viewed(self) -> list[Reply]:
        """Workers may be gone for good: the replies of sums that only waited for them."""
        replies = [reply for key in list(self._parts) for reply in self._complete(*key)]
        self._past = {group: past for group, past in self._past.items() if self._may_begin_anew(group)}
        return replies

    def _complete(self, group: str, number: int) -> list[Reply]:
        workers, parts = self._places.workers(group), self._parts[group, number]
        if not workers or any(place not in parts for place in workers):
            return []
        del self._parts[group, number]
        total = _total({worker: parts[place][1] for place, worker in workers.items()})
        if self._may_begin_anew(group):
            self._past.setdefault(group, {})[number] = total
        asked = [(worker, *parts[place]) for place, worker in workers.items()]
        return [(worker, _answer(total, part)) for worker, asker, part in asked if worker == asker]


def _total(parts: dict[int, Sum]) -> Total:
    """The sum of parts, by worker, in their order."""
    sizes = {len(part.values): worker for worker, part in reversed(parts.items())}
    if len(sizes) > 1:
        found = " and ".join(f"{size} numbers of worker {worker}" for size, worker in sorted(sizes.items()))
        return f"{found} can't be added up"
    return [sum(column) for column in zip(*(part.values for part in parts.values()), strict=True)]


def _answer(total: Total, part: Sum) -> SumReply | Refused:
    return Refused(part.time, total) if isinstance(total, str) else SumReply(part.time, total)
