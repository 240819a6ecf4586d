"""Several pieces of work on a network under way at once: while one waits for what mates have not made yet, or its
messages, others compute.

Source: Chilimbi et al. 2014, section 4.3.2, "mitigating the impact of slow machines": there with several images.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from mpips.algorithms.neural.network import Network
from mpips.algorithms.neural.relay import Swap, Work
from mpips.worker.exchanges import Exchange
from mpips.worker.worker import Worker

Begin = Callable[[Network], Work]


class _Flight:
    """A network that is at a piece of work: it computes, or waits for an exchange, or neither."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.number = -1  # of its work
        self.work: Work | None = None
        self.computing: Future[Swap | None] | None = None
        self.exchange: Exchange | None = None
        self.swaps = 0
        self.result: Any = None

    def begin(self, number: int, begin: Begin) -> None:
        self.number, self.work, self.exchange, self.swaps = number, begin(self.network), None, 0

    def go_on(self) -> Swap | None:
        """Compute until the next swap, or to the end."""
        assert self.work is not None
        try:
            return next(self.work)
        except StopIteration as end:
            self.result = end.value
            return None


class Flights:
    """Those of one worker.

    Parameters
    ----------
    worker : whose team swaps.
    networks : one for each piece of work that may be under way.
    threads : how many of them may compute at once.
    """

    def __init__(self, worker: Worker, networks: Sequence[Network], threads: int) -> None:
        self._worker = worker
        self._flights = [_Flight(network) for network in networks]
        self._threads = threads

    def fly(self, works: Sequence[Begin], key: tuple[int, ...]) -> list[Any]:
        """What comes of some works, in their order; they are begun in this order, and the oldest computes first.

        Parameters
        ----------
        key : what the team's members know these works by.

        Raises
        ------
        Regrouped
            when the team has another member: nothing computes any more, nothing comes of what was not over.
        """
        waiting = list(enumerate(works))[::-1]
        results = [None] * len(works)
        for flight in self._flights:
            flight.work = None

        def advance() -> bool:
            self._worker.team.check()
            for flight in sorted(self._flights, key=lambda each: each.number):
                if flight.computing is not None and flight.computing.done():
                    swap, flight.computing = flight.computing.result(), None
                    if swap is None:
                        results[flight.number], flight.work = flight.result, None
                    else:
                        flight.exchange = self._worker.team.swap((*key, flight.number, flight.swaps), *swap)
                        flight.swaps += 1
                if flight.work is None and waiting:
                    flight.begin(*waiting.pop())
            ready = [flight for flight in self._flights if flight.work and not flight.computing]
            free = self._threads - sum(flight.computing is not None for flight in self._flights)
            for flight in sorted(ready, key=lambda each: each.number):
                if free > 0 and (flight.exchange is None or flight.exchange.finished):
                    flight.computing = self._worker.beside(flight.go_on)
                    free -= 1
            return all(flight.work is None for flight in self._flights)

        def at_work() -> bool:
            return any(flight.computing is not None and not flight.computing.done() for flight in self._flights)

        try:
            self._worker.wait_beside(advance, at_work)
        finally:
            self._worker.wait_beside(lambda: not at_work(), at_work)
            for flight in self._flights:
                flight.computing = None
        return results
