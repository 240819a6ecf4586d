"""One-sided reads of a key range, which lies at several servers and may lie at others by a later view."""

from collections.abc import Iterable


class Reads:
    """One-sided reads into one array: those begun before a view may come after it.

    Attributes
    ----------
    again : whether all is to be read again when they have come.
    """

    def __init__(self) -> None:
        self.again = False
        self._open: dict[int, int] = {}

    def begin(self, servers: Iterable[int]) -> None:
        """Reads from these servers, one for each, begin."""
        for server in servers:
            self._open[server] = self._open.get(server, 0) + 1

    def done(self, server: int) -> bool:
        """One has come; whether it was the last."""
        if server not in self._open:  # it was dead
            return False
        self._open[server] -= 1
        if not self._open[server]:
            del self._open[server]
        return not self._open

    def under_way(self, lost: set[int]) -> set[int]:
        """The servers from which any will come: not those that are dead."""
        self._open = {server: count for server, count in self._open.items() if server not in lost}
        return set(self._open)
