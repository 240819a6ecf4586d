"""The fabric simulated: any number of ranks in one process, on a virtual clock, in a seeded order of events.

Each rank runs its ordinary code in a greenlet and gives way where a real one would sleep. Messages take a random time
but stay in order between two ranks, as in MPI; ranks can be killed, paused and cut off from each other. The same seed
gives the same run.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet

from mpips.errors import Error
from mpips.fabric.arena import Allocator
from mpips.fabric.base import Deadline, Fabric

T = TypeVar("T")

LONGEST_SLEEP = 0.25
SHORTEST_SLEEP = 1e-4
DETECTION = (0.02, 0.045)  # seconds until a rank's death is seen, as measured for killed processes


class Simulation:
    """A job of simulated ranks.

    Parameters
    ----------
    nodes : node number of every rank.
    arenas : bytes of every rank's arena.
    seed : of all that is random: message times, and the order of what happens at the same time.
    latency : shortest and longest time of a message, in seconds.

    Attributes
    ----------
    time : seconds on the virtual clock.
    messages, bytes : what has been sent in all.
    """

    def __init__(
        self,
        nodes: Sequence[int],
        arenas: Sequence[int],
        seed: int,
        latency: tuple[float, float] = (5e-6, 50e-6),
    ) -> None:
        self.time = 0.0
        self.messages = 0
        self.bytes = 0
        self.seed = seed
        self._random = np.random.default_rng(seed)
        self._latency = latency
        self._events: list[tuple[float, float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._hub: Any = None
        self._living = 0
        self._cuts: list[tuple[set[int], float, float]] = []
        places: list[int] = [0] * len(nodes)
        totals = dict.fromkeys(nodes, 0)
        for rank, (node, size) in enumerate(zip(nodes, arenas, strict=True)):
            places[rank] = totals[node]
            totals[node] += size + -size % 4096
        memories = {node: np.zeros(total, np.uint8) for node, total in totals.items()}
        self.ranks = [
            SimFabric(self, rank, list(nodes), places, memories[node], size)
            for rank, (node, size) in enumerate(zip(nodes, arenas, strict=True))
        ]

    # --- what may go wrong ------------------------------------------------------------------------------------------

    def kill(self, rank: int, at: float) -> None:
        """Have a rank die when it next looks at the world after this time."""
        self._at(at, lambda: self._die(rank))

    def kill_at_message(self, rank: int, count: int) -> None:
        """Have a rank die when it is about to send its `count`-th message."""
        self.ranks[rank].last_message = count

    def pause(self, rank: int, at: float, seconds: float) -> None:
        """Have a rank stand still for a while; it is not dead."""
        self._at(at, lambda: setattr(self.ranks[rank], "paused_until", self.time + seconds))

    def cut(self, ranks: Sequence[int], at: float, until: float) -> None:
        """Hold back all messages between these ranks and the others for a while."""
        self._cuts.append((set(ranks), at, until))

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, main: Callable[["SimFabric"], T], limit: float = 3600.0) -> list[T | None]:
        """Run `main` on every rank until all have returned or died; their results, None for the dead.

        Raises
        ------
        Deadline
            when the virtual clock passes `limit` seconds; the text says what every rank waits for.
        """
        self._hub = getcurrent()
        results: list[T | None] = [None] * len(self.ranks)

        def life(fabric: SimFabric) -> None:
            try:
                results[fabric.rank] = main(fabric)
            finally:
                self._living -= 1

        self._living = len(self.ranks)
        for fabric in self.ranks:
            fabric.life = greenlet(lambda fabric=fabric: life(fabric))
            fabric.wake_at(0.0)
        while self._events and self._living:
            self.time, _, _, event = heapq.heappop(self._events)
            if self.time > limit:
                waits = "\n".join(f"rank {f.rank}: {f.waiting or 'running'}" for f in self.ranks if not f.life.dead)
                raise Deadline(f"seed {self.seed}: not over after {limit:g} simulated seconds\n{waits}")
            event()
        return results

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, float(self._random.random()), next(self._numbers), event))

    def _travel(self) -> float:
        return float(self._random.uniform(*self._latency))

    def _arrival(self, source: int, dest: int) -> float:
        time = self.time + self._travel()
        for apart, start, until in self._cuts:
            if start <= time < until and (source in apart) != (dest in apart):
                time = until + self._travel()
        return time

    def _die(self, rank: int) -> None:
        fabric = self.ranks[rank]
        if not fabric.dead and not fabric.life.dead:
            fabric.dead = True
            fabric.life.throw(GreenletExit)
            self._announce(rank)

    def _announce(self, rank: int) -> None:
        for other in self.ranks:
            if other.rank != rank:
                seen = self.time + float(self._random.uniform(*DETECTION))
                self._at(seen, lambda other=other: other.learn(rank))  # type: ignore[misc]


class SimFabric(Fabric):
    """One rank of a `Simulation`."""

    def __init__(
        self,
        simulation: Simulation,
        rank: int,
        nodes: list[int],
        places: list[int],
        memory: np.ndarray[Any, np.dtype[np.uint8]],
        size: int,
    ) -> None:
        super().__init__()
        self.rank, self.size, self.nodes = rank, len(nodes), nodes
        self.memory = memory
        self.arena = memory[places[rank] : places[rank] + size]
        self.space = Allocator(size)
        self.life: Any = None
        self.dead = False
        self.paused_until = 0.0
        self.last_message: int | None = None
        self.sent = 0
        self._world = simulation
        self._places = places
        self._inbox: deque[tuple[int, bytes] | int] = deque()
        self._reads: deque[Callable[[], None]] = deque()
        self._last_arrival: dict[int, float] = {}
        self._wakes = 0

    def now(self) -> float:
        return self._world.time

    def place(self, rank: int) -> int | None:
        return self._places[rank] if self.nodes[rank] == self.nodes[self.rank] else None

    def _read(self, rank: int, offset: int, out: np.ndarray[Any, Any], then: Callable[[], None]) -> None:
        world = self._world
        source = world.ranks[rank]

        def arrive() -> None:
            if not source.dead:  # a read from the dead never completes
                out.view(np.uint8).reshape(-1)[:] = source.arena[offset : offset + out.nbytes]
                self._reads.append(then)
                self.wake_at(world.time)

        world._at(world._arrival(rank, self.rank), arrive)

    def _arrived(self) -> Callable[[], None] | None:
        return self._reads.popleft() if self._reads else None

    def _post(self, dest: int, data: bytes) -> None:
        self.sent += 1
        if self.sent == self.last_message:
            self.dead = True
            self._world._announce(self.rank)
            raise GreenletExit
        world = self._world
        world.messages += 1
        world.bytes += len(data)
        after_the_last = float(np.nextafter(self._last_arrival.get(dest, 0.0), np.inf))
        arrival = max(after_the_last, world._arrival(self.rank, dest))
        self._last_arrival[dest] = arrival
        world._at(arrival, lambda: world.ranks[dest].take(self.rank, data))

    def _poll(self) -> tuple[int, bytes] | None:
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, tuple):
                return item
            self._note_lost(item)
        return None

    def _relax(self, idle: float) -> None:
        self.wake_at(self.now() + min(LONGEST_SLEEP, max(SHORTEST_SLEEP, idle)))
        self._world._hub.switch()

    def aside(self, work: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(work())
        except Error as error:
            future.set_exception(error)
        return future

    # --- called by the simulation -----------------------------------------------------------------------------------

    def take(self, source: int, data: bytes) -> None:
        """A message arrives."""
        if not self.dead:
            self._inbox.append((source, data))
            self.wake_at(self._world.time)

    def learn(self, rank: int) -> None:
        """A rank's death is seen."""
        if not self.dead:
            self._inbox.append(rank)
            self.wake_at(self._world.time)

    def wake_at(self, time: float) -> None:
        """Go on at this time, unless something wakes the rank before."""
        self._wakes += 1
        wake = self._wakes

        def resume() -> None:
            if self.dead or self.life.dead or wake != self._wakes:
                return
            if self._world.time < self.paused_until:
                self.wake_at(self.paused_until)
            else:
                self.life.switch()

        self._world._at(time, resume)
