"""Several pieces of work on a network under way at once: while one waits for what mates have not made yet, or its
messages, others compute.

Source: Chilimbi et al. 2014, section 4.3.2, "mitigating the impact of slow machines": there with several images.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
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

    def go_on(self, waiting: "deque[tuple[int, Begin]]", results: list[Any]) -> Swap | None:
        """Compute, from one piece of work to the next that waits, until a swap, or until there is none."""
        while True:
            if self.work is None:
                try:
                    self.number, begin = waiting.popleft()
                except IndexError:
                    return None
                self.work, self.swaps = begin(self.network), 0
            try:
                return next(self.work)
            except StopIteration as end:
                results[self.number], self.work = end.value, None


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
        self._networks = networks
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
        flights = [_Flight(network) for network in self._networks[: len(works)]]
        waiting = deque(enumerate(works))
        results = [None] * len(works)
        going = set(flights)

        def advance() -> bool:
            self._worker.team.check()
            for flight in flights:
                if flight.computing is not None and flight.computing.done():
                    swap, flight.computing = flight.computing.result(), None
                    if swap is None:
                        going.discard(flight)
                    else:
                        flight.exchange = self._worker.team.swap((*key, flight.number, flight.swaps), *swap)
                        flight.swaps += 1
            free = self._threads - sum(flight.computing is not None for flight in flights)
            for flight in sorted(going, key=lambda each: each.number):
                ready = flight.exchange is None or flight.exchange.finished
                if free > 0 and ready and flight.computing is None:
                    flight.exchange = None
                    flight.computing = self._worker.beside(partial(flight.go_on, waiting, results))
                    free -= 1
            return not going

        def at_work() -> bool:
            return any(flight.computing is not None and not flight.computing.done() for flight in flights)

        try:
            self._worker.wait_beside(advance, at_work)
        finally:
            waiting.clear()
            self._worker.wait_beside(lambda: not at_work(), at_work)
        return results
