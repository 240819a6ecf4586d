"""Sums over the workers of a group: the n-th part of each, added in the order of their places. Pure."""

from mpips.messages import Refused, Sum, SumReply
from mpips.scheduler.places import Places

Reply = tuple[int, SumReply | Refused]


class Sums:
    """Takes parts in, gives the replies when a sum is complete.

    All sums are remembered: a worker that takes another's place runs its program from the beginning and asks for them
    again, in order.

    Parameters
    ----------
    places : where the workers stand.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._parts: dict[tuple[str, int], dict[int, tuple[int, Sum]]] = {}  # worker and its part, by place
        self._past: dict[tuple[str, int], list[float] | str] = {}  # a text: why there is no sum

    def add(self, group: str, worker: int, part: Sum) -> list[Reply]:
        """Take a worker's part; the reply to every worker when it was the last one missing.

        Parts of different sizes are refused.
        """
        key = group, part.number
        if key in self._past:
            return [self._reply(key, worker, part)]
        self._parts.setdefault(key, {})[self._places.of(worker)] = worker, part
        return self._complete(key)

    def viewed(self) -> list[Reply]:
        """Workers may be gone for good: the replies of sums that only waited for them."""
        return [reply for key in list(self._parts) for reply in self._complete(key)]

    def _complete(self, key: tuple[str, int]) -> list[Reply]:
        workers, parts = self._places.workers(key[0]), self._parts[key]
        if not workers or any(place not in parts for place in workers):
            return []
        del self._parts[key]
        sizes = {len(parts[place][1].values): worker for place, worker in reversed(workers.items())}
        if len(sizes) > 1:
            found = " and ".join(f"{size} numbers of worker {worker}" for size, worker in sorted(sizes.items()))
            self._past[key] = f"{found} can't be added up"
        else:
            columns = zip(*(parts[place][1].values for place in workers), strict=True)
            self._past[key] = [sum(column) for column in columns]
        asked = [(worker, *parts[place]) for place, worker in workers.items()]
        return [self._reply(key, worker, part) for worker, asker, part in asked if worker == asker]

    def _reply(self, key: tuple[str, int], worker: int, part: Sum) -> Reply:
        found = self._past[key]
        answer = Refused(part.time, found) if isinstance(found, str) else SumReply(part.time, found)
        return worker, answer
