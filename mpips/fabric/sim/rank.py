"""One rank of a simulation."""

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
from greenlet import GreenletExit

from mpips.errors import Error
from mpips.fabric.arena import Allocator
from mpips.fabric.base import Fabric, NoBirth

if TYPE_CHECKING:
    from mpips.fabric.sim.simulation import Simulation

T = TypeVar("T")

LONGEST_SLEEP = 0.25
SHORTEST_SLEEP = 1e-3  # every look at the world costs the simulation time; messages wake a rank at once


class SimFabric(Fabric):
    """One rank of a `Simulation`."""

    survives = True

    def __init__(
        self,
        simulation: "Simulation",
        rank: int,
        nodes: list[int],
        places: list[int],
        memory: np.ndarray[Any, np.dtype[np.uint8]],
        size: int,
    ) -> None:
        super().__init__()
        self.rank, self.size, self.nodes = rank, len(nodes), nodes
        self.cores = 1  # wherever the simulation runs
        self.memory = memory
        self.arena = memory[places[rank] : places[rank] + size]
        self.space = Allocator(size)
        self.life: Any = None
        self._child: SimFabric = self
        self.dead = False
        self.ended = math.inf  # when its life ended
        self.paused_until = 0.0
        self.last_message: int | None = None
        self.last_received: int | None = None
        self.sent = 0
        self.received = 0
        self._world = simulation
        self._places = places
        self._inbox: deque[tuple[int, bytes] | int] = deque()
        self._reads: deque[Callable[[], None]] = deque()
        self._last_arrival: dict[int, float] = {}
        self._wake: float | None = None  # when it goes on, unless it is running

    def now(self) -> float:
        return self._world.time

    def heard(self, rank: int) -> float:
        return self._world.heard(rank, self.rank)

    def give_signs_to(self, ranks: list[int]) -> None:
        pass  # everyone gives them to everyone

    def place(self, rank: int) -> int | None:
        return self._places[rank] if self._world.ranks[rank].memory is self.memory else None

    def bear(self, rank: int) -> None:
        self._child = self._world.bear(self, rank)

    def child_is_ready(self) -> bool:
        if self._child.dead or self._child.life.dead:
            raise NoBirth("the new process has died")
        return bool(self._child.life)

    def introduce(self, rank: int, peer: int) -> None:
        if self._child.dead or self._world.ranks[peer].dead:
            raise NoBirth(f"rank {rank} and rank {peer} could not be introduced")

    def meet(self, rank: int, parent: int) -> None:
        pass

    def abandon_child(self) -> None:
        self._world.die(self._child.rank)

    def release_child(self) -> None:
        self._child.admit([*self.nodes, self.nodes[self.rank]], set())

    def _read(self, rank: int, offset: int, out: np.ndarray[Any, Any], then: Callable[[], None]) -> None:
        world = self._world
        source = world.ranks[rank]

        def arrive() -> None:
            if not source.dead:  # a read from the dead never completes
                out.view(np.uint8).reshape(-1)[:] = source.arena[offset : offset + out.nbytes]
                self._reads.append(then)
                self.wake_at(world.time)

        arrival = world.network.arrival(rank, self.rank, world.time)
        if arrival < math.inf:
            world.at(arrival, arrive)

    def _arrived(self) -> Callable[[], None] | None:
        return self._reads.popleft() if self._reads else None

    def _post(self, dest: int, data: bytes) -> None:
        self.sent += 1
        if self.sent == self.last_message:
            self.fall()
        world = self._world
        world.messages += 1
        world.bytes += len(data)
        after_the_last = math.nextafter(self._last_arrival.get(dest, 0.0), math.inf)
        arrival = max(after_the_last, world.network.arrival(self.rank, dest, world.time))
        if arrival == math.inf:
            return
        self._last_arrival[dest] = arrival
        world.at(arrival, world.ranks[dest].take, self.rank, data)
        if world.network.repeats(data):
            world.at(arrival + world.network.travel(), world.ranks[dest].take, self.rank, data)

    def fall(self) -> NoReturn:
        """Die here and now."""
        self.dead = True
        self._world.announce(self.rank)
        raise GreenletExit

    def _poll(self) -> tuple[int, bytes] | None:
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, tuple):
                self.received += 1
                if self.received == self.last_received:
                    self.fall()
                return item
            self._note_lost(item)
        return None

    def _relax(self, idle: float) -> None:
        self.wake_at(self.now() + min(LONGEST_SLEEP, max(SHORTEST_SLEEP, 3 * idle)))
        self._world.give_way()

    def aside(self, work: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()

        def run() -> None:
            if self.dead:
                return
            try:
                future.set_result(work())
            except Error as error:
                future.set_exception(error)

        self._world.aside(run)
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
        if self._wake is None or time < self._wake:
            self._wake = time
            self._world.at(time, self._resume, time)

    def _resume(self, time: float) -> None:
        if time != self._wake or self.dead or self.life.dead:
            return
        self._wake = None
        if time < self.paused_until:
            self.wake_at(self.paused_until)
        else:
            self.life.switch()
