"""Sums over the workers of a group: the n-th part of each, added in the order of the workers. Pure."""

from collections.abc import Mapping, Sequence

from mpips.messages import Refused, Sum, SumReply


class Sums:
    """Takes parts in, gives the replies when a sum is complete.

    Parameters
    ----------
    groups : workers of each group, in the order in which their parts are added.
    """

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        self._groups = groups
        self._parts: dict[tuple[str, int], dict[int, Sum]] = {}

    def add(self, group: str, worker: int, part: Sum) -> list[tuple[int, SumReply | Refused]]:
        """Take a worker's part; the reply to every worker when it was the last one missing.

        Parts of different sizes are refused.
        """
        key = group, part.number
        parts = self._parts.setdefault(key, {})
        parts[worker] = part
        if len(parts) < len(self._groups[group]):
            return []
        del self._parts[key]
        workers = self._groups[group]
        sizes = {len(parts[each].values): each for each in reversed(workers)}
        if len(sizes) > 1:
            found = " and ".join(f"{size} numbers of worker {each}" for size, each in sorted(sizes.items()))
            return [(each, Refused(parts[each].time, f"{found} can't be added up")) for each in workers]
        total = [sum(column) for column in zip(*(parts[each].values for each in workers), strict=True)]
        return [(each, SumReply(parts[each].time, total)) for each in workers]
