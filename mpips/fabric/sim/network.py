"""How long messages and reads of a simulation take, and what may become of them on their way."""

import random
from collections.abc import Sequence
from math import inf

from mpips.messages import decode


class Network:
    """One for all ranks.

    Parameters
    ----------
    latency : shortest and longest time of a message, in seconds.
    drawn : random numbers.
    """

    def __init__(self, latency: tuple[float, float], drawn: random.Random) -> None:
        self._latency = latency
        self._random = drawn
        self._late = (0.0, 0.0)
        self._repeated = 0.0
        self._repeated_kinds: Sequence[str] | None = None
        self._silences: list[tuple[set[int], float]] = []
        self._cuts: list[tuple[set[int], float, float]] = []

    def cut(self, ranks: Sequence[int], at: float, until: float) -> None:
        """Hold back all messages between these ranks and the others for a while."""
        self._cuts.append((set(ranks), at, until))

    def silence(self, ranks: Sequence[int], at: float) -> None:
        """Have nothing pass between these ranks and the others from some time on."""
        self._silences.append((set(ranks), at))

    def heard(self, source: int, dest: int, now: float) -> float:
        """The last time at which anything could pass between two ranks."""
        return min((at for apart, at in self._silences if (source in apart) != (dest in apart)), default=now)

    def delay(self, share: float, seconds: float) -> None:
        """Have this share of messages and reads take longer, by so many seconds in the mean, a few of them by far more;
        what follows them between the same two ranks waits.
        """
        self._late = share, seconds

    def repeat(self, share: float, kinds: Sequence[str] | None) -> None:
        """Have this share of messages, or of those of the types named, come a second time, at any later time."""
        self._repeated, self._repeated_kinds = share, kinds

    def travel(self) -> float:
        """Seconds that a message or a read takes."""
        shortest, longest = self._latency
        time = shortest + (longest - shortest) * self._random.random()
        share, seconds = self._late
        if share and self._random.random() < share:
            time += seconds * (self._random.paretovariate(2.0) - 1.0)
        return time

    def arrival(self, source: int, dest: int, now: float) -> float:
        """When what `source` sends to `dest` now arrives; infinite if never."""
        time = now + self.travel()
        if self.heard(source, dest, time) < time:
            return inf
        for apart, start, until in self._cuts:
            if start <= time < until and (source in apart) != (dest in apart):
                time = until + self.travel()
        return time

    def repeats(self, data: bytes) -> bool:
        """Whether a message comes a second time."""
        if not self._repeated or self._random.random() >= self._repeated:
            return False
        return self._repeated_kinds is None or type(decode(data)).__name__ in self._repeated_kinds
