"""The fabric simulated: any number of ranks in one process, on a virtual clock, in a seeded order of events.

Each rank runs its ordinary code in a greenlet and gives way where a real one would sleep. Messages take a random time
but stay in order between two ranks, as in MPI; ranks can be killed, paused and cut off from each other, messages can be
late or come twice. The same seed and the same faults give the same run.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn, TypeVar

import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet

from mpips.errors import Error
from mpips.fabric.arena import Allocator
from mpips.fabric.base import Deadline, Fabric, NoBirth
from mpips.messages import decode

T = TypeVar("T")

LONGEST_SLEEP = 0.25
SHORTEST_SLEEP = 1e-3  # every look at the world costs the simulation time; messages wake a rank at once
BIRTH = (0.2, 1.0)  # seconds from when a process is started until it is ready
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
    faults : what was arranged to go wrong, for `arrange`.
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
        self.faults: list[tuple[Any, ...]] = []
        self._random = random.Random(seed)
        self._chance = random.Random(seed)  # for `kill_one` alone: what it draws must not change the rest of the run
        self._latency = latency
        self._late = (0.0, 0.0)
        self._repeated = 0.0
        self._repeated_kinds: Sequence[str] | None = None
        self._aside = (0.0, 0.0)
        self._events: list[tuple[float, float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._hub: Any = None
        self._life: Callable[[SimFabric], None] = lambda fabric: None
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

    @property
    def story(self) -> str:
        """The run in one line: its seed, and the faults that `arrange` takes."""
        return f"seed {self.seed}" + (f", faults {self.faults}" if self.faults else "")

    def arrange(self, faults: Iterable[tuple[Any, ...]]) -> None:
        """Arrange faults as `faults` has them: the name of a method that follows, and its arguments."""
        for name, *arguments in faults:
            getattr(self, name)(*arguments)

    def kill(self, rank: int, at: float) -> None:
        """Have a rank die when it next looks at the world after this time."""
        self.faults.append(("kill", rank, at))
        self._fault(at, self._die, rank)

    def kill_one(self, choose: Callable[[], Sequence[int]], at: float) -> None:
        """Have one of the ranks that `choose` names at that time die; none when it names none."""

        def strike() -> None:
            ranks = choose()
            if ranks:
                rank = self._chance.choice(ranks)
                self.faults.append(("kill", rank, at))
                self._die(rank)

        self._fault(at, strike)

    def kill_at_message(self, rank: int, count: int) -> None:
        """Have a rank die when it is about to send its `count`-th message."""
        self.faults.append(("kill_at_message", rank, count))
        self.ranks[rank].last_message = count

    def kill_at_received(self, rank: int, count: int) -> None:
        """Have a rank die when it has received its `count`-th message, and not handled it."""
        self.faults.append(("kill_at_received", rank, count))
        self.ranks[rank].last_received = count

    def pause(self, rank: int, at: float, seconds: float) -> None:
        """Have a rank stand still for a while; it is not dead."""
        self.faults.append(("pause", rank, at, seconds))
        self._fault(at, self._halt, rank, seconds)

    def mistake(self, rank: int, at: float, seconds: float) -> None:
        """Have a rank stand still for a while, and all others see it as dead meanwhile; some time after it has come
        back it is ended, as a false suspect is by ULFM.
        """
        self.faults.append(("mistake", rank, at, seconds))
        self._fault(at, self._halt, rank, seconds)
        self._fault(at, self._announce, rank)
        self._fault(at + seconds + DETECTION[1], self._die, rank)

    def cut(self, ranks: Sequence[int], at: float, until: float) -> None:
        """Hold back all messages between these ranks and the others for a while."""
        self.faults.append(("cut", list(ranks), at, until))
        self._cuts.append((set(ranks), at, until))

    def delay(self, share: float, seconds: float) -> None:
        """Have this share of messages and reads take longer, by so many seconds in the mean, a few of them by far more;
        what follows them between the same two ranks waits.
        """
        self.faults.append(("delay", share, seconds))
        self._late = share, seconds

    def repeat(self, share: float, kinds: Sequence[str] | None = None) -> None:
        """Have this share of messages, or of those of the types named, come a second time, at any later time."""
        self.faults.append(("repeat", share, kinds))
        self._repeated, self._repeated_kinds = share, kinds

    def linger(self, shortest: float, longest: float) -> None:
        """Have what ranks run aside be done after so many seconds; otherwise it is at once."""
        self.faults.append(("linger", shortest, longest))
        self._aside = shortest, longest

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, main: Callable[["SimFabric"], T], limit: float = 3600.0) -> list[T | None]:
        """Run `main` on every rank until all have returned or died; their results, None for the dead.

        Raises
        ------
        Deadline
            when the virtual clock passes `limit` seconds; the text says what every rank waits for. To this and every
            other exception the story is added as a note.
        """
        self._hub = getcurrent()
        results: dict[int, T] = {}

        def life(fabric: SimFabric) -> None:
            try:
                results[fabric.rank] = main(fabric)
            finally:
                self._living -= 1

        self._life = life
        for fabric in self.ranks:
            self._begin(fabric, 0.0)
        try:
            while self._events and self._living:
                self.time, _, _, event, arguments = heapq.heappop(self._events)
                if self.time > limit:
                    waits = "\n".join(f"rank {f.rank}: {f.waiting or 'running'}" for f in self._alive())
                    raise Deadline(f"seed {self.seed}: not over after {limit:g} simulated seconds\n{waits}")
                event(*arguments)
        except BaseException as error:
            error.add_note(self.story)
            raise
        return [results.get(rank) for rank in range(len(self.ranks))]

    def _begin(self, fabric: "SimFabric", time: float) -> None:
        self._living += 1
        fabric.life = greenlet(lambda: self._life(fabric))
        fabric.wake_at(time)

    def _alive(self) -> list["SimFabric"]:
        return [fabric for fabric in self.ranks if not fabric.dead and not fabric.life.dead]

    def bear(self, parent: "SimFabric", rank: int) -> "SimFabric":
        """Have a rank begin to live, some time from now."""
        if rank < len(self.ranks):
            raise NoBirth(f"rank {rank} was to be another's child")
        size = parent.arena.size
        for number in range(len(self.ranks), rank + 1):  # those before it never came
            nodes = [*parent.nodes, *[parent.nodes[parent.rank]] * (number + 1 - len(parent.nodes))]
            self.ranks.append(SimFabric(self, number, nodes, [0] * len(nodes), np.zeros(size, np.uint8), size))
            self.ranks[-1].dead = number < rank
        child = self.ranks[rank]
        child.parent = parent.rank
        self._begin(child, self.time + self._random.uniform(*BIRTH))
        return child

    def _at(self, time: float, event: Callable[..., object], *arguments: Any) -> None:
        heapq.heappush(self._events, (time, self._random.random(), next(self._numbers), event, arguments))

    def _fault(self, time: float, event: Callable[..., object], *arguments: Any) -> None:
        """A fault comes first of all that happens at its time, so that it does so again when it is arranged again."""
        heapq.heappush(self._events, (time, -1.0, next(self._numbers), event, arguments))

    def _travel(self) -> float:
        shortest, longest = self._latency
        time = shortest + (longest - shortest) * self._random.random()
        share, seconds = self._late
        if share and self._random.random() < share:
            time += seconds * (self._random.paretovariate(2.0) - 1.0)
        return time

    def _repeats(self, data: bytes) -> bool:
        if not self._repeated or self._random.random() >= self._repeated:
            return False
        return self._repeated_kinds is None or type(decode(data)).__name__ in self._repeated_kinds

    def _arrival(self, source: int, dest: int) -> float:
        time = self.time + self._travel()
        for apart, start, until in self._cuts:
            if start <= time < until and (source in apart) != (dest in apart):
                time = until + self._travel()
        return time

    def _halt(self, rank: int, seconds: float) -> None:
        self.ranks[rank].paused_until = self.time + seconds

    def _die(self, rank: int) -> None:
        fabric = self.ranks[rank]
        if not fabric.dead and not fabric.life.dead:
            fabric.dead = True
            fabric.life.throw(GreenletExit)
            self._announce(rank)

    def _announce(self, rank: int) -> None:
        for other in self.ranks:
            if other.rank != rank:
                self._at(self.time + self._random.uniform(*DETECTION), other.learn, rank)


class SimFabric(Fabric):
    """One rank of a `Simulation`."""

    survives = True

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
        self._child: SimFabric = self
        self.dead = False
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
        self._world._die(self._child.rank)

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

        world._at(world._arrival(rank, self.rank), arrive)

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
        arrival = max(after_the_last, world._arrival(self.rank, dest))
        self._last_arrival[dest] = arrival
        world._at(arrival, world.ranks[dest].take, self.rank, data)
        if world._repeats(data):
            world._at(arrival + world._travel(), world.ranks[dest].take, self.rank, data)

    def fall(self) -> NoReturn:
        """Die here and now."""
        self.dead = True
        self._world._announce(self.rank)
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
        self._world._hub.switch()

    def aside(self, work: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()

        def run() -> None:
            if self.dead:
                return
            try:
                future.set_result(work())
            except Error as error:
                future.set_exception(error)

        shortest, longest = self._world._aside
        if longest:
            self._world._at(self.now() + self._world._random.uniform(shortest, longest), run)
        else:
            run()
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
            self._world._at(time, self._resume, time)

    def _resume(self, time: float) -> None:
        if time != self._wake or self.dead or self.life.dead:
            return
        self._wake = None
        if time < self.paused_until:
            self.wake_at(self.paused_until)
        else:
            self.life.switch()
