"""A job of simulated ranks: what goes wrong in it, and the course of its events."""

import mmap
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet

from mpips.fabric.base import Deadline, NoBirth
from mpips.fabric.sim.clock import Clock
from mpips.fabric.sim.network import Network
from mpips.fabric.sim.rank import SimFabric

T = TypeVar("T")

BIRTH = (0.2, 1.0)  # seconds from when a process is started until it is ready
DETECTION = (0.02, 0.045)  # seconds until a rank's death is seen, as measured for killed processes


def _zeros(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Memory that is made when it is first used, which most of an arena never is; NumPy may clear all of it."""
    return np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8)[:size]


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
    network : what messages and reads take.
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
        self.messages = 0
        self.bytes = 0
        self.seed = seed
        self.faults: list[tuple[Any, ...]] = []
        self._random = random.Random(seed)
        self._chance = random.Random(seed)  # for `kill_one` alone: what it draws must not change the rest of the run
        self._clock = Clock(self._random)
        self.network = Network(latency, self._random)
        self._aside = (0.0, 0.0)
        self._hub: Any = None
        self._life: Callable[[SimFabric], None] = lambda fabric: None
        self._living = 0
        places: list[int] = [0] * len(nodes)
        totals = dict.fromkeys(nodes, 0)
        for rank, (node, size) in enumerate(zip(nodes, arenas, strict=True)):
            places[rank] = totals[node]
            totals[node] += size + -size % 4096
        memories = {node: _zeros(total) for node, total in totals.items()}
        self.ranks = [
            SimFabric(self, rank, list(nodes), places, memories[node], size)
            for rank, (node, size) in enumerate(zip(nodes, arenas, strict=True))
        ]

    @property
    def time(self) -> float:
        """Seconds on the virtual clock."""
        return self._clock.time

    def at(self, time: float, event: Callable[..., object], *arguments: Any) -> None:
        """Have a function called at this time."""
        self._clock.at(time, event, *arguments)

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
        self._clock.first_at(at, self.die, rank)

    def kill_one(self, choose: Callable[[], Sequence[int]], at: float) -> None:
        """Have one of the ranks that `choose` names at that time die; none when it names none."""

        def strike() -> None:
            ranks = choose()
            if ranks:
                rank = self._chance.choice(ranks)
                self.faults.append(("kill", rank, at))
                self.die(rank)

        self._clock.first_at(at, strike)

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
        self._clock.first_at(at, self._halt, rank, seconds)

    def mistake(self, rank: int, at: float, seconds: float) -> None:
        """Have a rank stand still for a while, and all others see it as dead meanwhile; some time after it has come
        back it is ended, as a false suspect is by ULFM.
        """
        self.faults.append(("mistake", rank, at, seconds))
        self._clock.first_at(at, self._halt, rank, seconds)
        self._clock.first_at(at, self.announce, rank)
        self._clock.first_at(at + seconds + DETECTION[1], self.die, rank)

    def cut(self, ranks: Sequence[int], at: float, until: float) -> None:
        """Hold back all messages between these ranks and the others for a while."""
        self.faults.append(("cut", list(ranks), at, until))
        self.network.cut(ranks, at, until)

    def silence(self, ranks: Sequence[int], at: float) -> None:
        """Have nothing pass between these ranks and the others from some time on, nor either side see that the other
        dies: a cable is pulled.
        """
        self.faults.append(("silence", list(ranks), at))
        self.network.silence(ranks, at)

    def delay(self, share: float, seconds: float) -> None:
        """Have this share of messages and reads take longer, by so many seconds in the mean, a few of them by far more;
        what follows them between the same two ranks waits.
        """
        self.faults.append(("delay", share, seconds))
        self.network.delay(share, seconds)

    def repeat(self, share: float, kinds: Sequence[str] | None = None) -> None:
        """Have this share of messages, or of those of the types named, come a second time, at any later time."""
        self.faults.append(("repeat", share, kinds))
        self.network.repeat(share, kinds)

    def linger(self, shortest: float, longest: float) -> None:
        """Have what ranks run aside be done after so many seconds; otherwise it is at once."""
        self.faults.append(("linger", shortest, longest))
        self._aside = shortest, longest

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, main: Callable[[SimFabric], T], limit: float = 3600.0) -> list[T | None]:
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
                fabric.ended = self.time
                self._living -= 1

        self._life = life
        for fabric in self.ranks:
            self._begin(fabric, 0.0)
        try:
            while self._clock and self._living:
                event, arguments = self._clock.advance()
                if self.time > limit:
                    waits = "\n".join(f"rank {f.rank}: {f.waiting or 'running'}" for f in self._alive())
                    raise Deadline(f"seed {self.seed}: not over after {limit:g} simulated seconds\n{waits}")
                event(*arguments)
        except BaseException as error:
            error.add_note(self.story)
            raise
        return [results.get(rank) for rank in range(len(self.ranks))]

    def _begin(self, fabric: SimFabric, time: float) -> None:
        self._living += 1
        fabric.life = greenlet(lambda: self._life(fabric))
        fabric.wake_at(time)

    def _alive(self) -> list[SimFabric]:
        return [fabric for fabric in self.ranks if not fabric.dead and not fabric.life.dead]

    def _halt(self, rank: int, seconds: float) -> None:
        self.ranks[rank].paused_until = self.time + seconds

    def heard(self, rank: int, by: int) -> float:
        """When a rank was last heard by another."""
        return min(self.ranks[rank].ended, self.network.heard(rank, by, self.time))

    # --- called by ranks --------------------------------------------------------------------------------------------

    def give_way(self) -> None:
        """Let others go on, until the rank that calls this is woken."""
        self._hub.switch()

    def aside(self, work: Callable[[], object]) -> None:
        """Have something done beside what ranks do."""
        shortest, longest = self._aside
        if longest:
            self.at(self.time + self._random.uniform(shortest, longest), work)
        else:
            work()

    def bear(self, parent: SimFabric, rank: int) -> SimFabric:
        """Have a rank begin to live, some time from now."""
        if rank < len(self.ranks):
            raise NoBirth(f"rank {rank} was to be another's child")
        size = parent.arena.size
        for number in range(len(self.ranks), rank + 1):  # those before it never came
            nodes = [*parent.nodes, *[parent.nodes[parent.rank]] * (number + 1 - len(parent.nodes))]
            self.ranks.append(SimFabric(self, number, nodes, [0] * len(nodes), _zeros(size), size))
            self.ranks[-1].dead = number < rank
        child = self.ranks[rank]
        child.parent = parent.rank
        self._begin(child, self.time + self._random.uniform(*BIRTH))
        return child

    def die(self, rank: int) -> None:
        """A rank dies."""
        fabric = self.ranks[rank]
        if not fabric.dead and not fabric.life.dead:
            fabric.dead = True
            fabric.life.throw(GreenletExit)
            self.announce(rank)

    def announce(self, rank: int) -> None:
        """All others see a rank as dead, some time from now."""
        for other in self.ranks:
            if other.rank != rank and self.network.heard(rank, other.rank, self.time) == self.time:
                self.at(self.time + self._random.uniform(*DETECTION), other.learn, rank)
