"""Ranks that only issue and take tasks, without a job: functions that note what they did, and tasks held open."""

from collections.abc import Callable, Sequence
from typing import Any

from mpips.errors import Error
from mpips.fabric.sim import SimFabric, Simulation
from mpips.messages import Stop
from mpips.tasks import Issued, Received, Task
from mpips.tasks.calls import Calls, call, function
from tests.simulated import FAST, rest


class Peer:
    """What a rank is to the functions that others call on it.

    Attributes
    ----------
    fabric, issued, received : the rank's.
    done : what `do` and `hold` were called with, in order.
    held : tasks that `hold` has left open, by name.
    """

    def __init__(self, fabric: SimFabric) -> None:
        self.fabric = fabric
        self.issued, self.received = Issued(fabric), Received(fabric)
        self.done: list[Any] = []
        self.held: dict[Any, Task[Any]] = {}
        self.over = False
        Calls(self.received, self.issued, self)
        fabric.on(Stop, self._stopped)

    def _stopped(self, source: int, message: Stop) -> None:
        self.over = True

    def call(self, ranks: Sequence[int], name: str, argument: Any = None, after: Sequence[Task[Any]] = ()) -> Task[Any]:
        """Call a function on some ranks."""
        return call(self.issued, ranks, name, argument, after)

    def look(self, seconds: float = 0.01) -> None:
        """Handle messages for some simulated time."""
        rest(self.fabric, seconds)


@function
def do(peer: Peer, name: Any) -> Any:
    """Note that it was called."""
    peer.done.append(name)
    return [peer.fabric.rank, name]


@function
def hold(peer: Peer, name: Any) -> Task[Any]:
    """Note that it was called, and be done when `release` is called with the same name."""
    peer.done.append(name)
    peer.held[name] = Task(peer.issued, f"the release of {name}")
    return peer.held[name]


@function
def release(peer: Peer, name: Any) -> None:
    """End what `hold` has left open."""
    peer.held.pop(name).finish(f"{name} released")


@function
def fail(peer: Peer, reason: str) -> None:
    """Fail."""
    raise Error(reason)


def simulate(
    program: Callable[[Peer], Any], ranks: int = 3, seed: int = 1, latency: tuple[float, float] = FAST, kill: Any = None
) -> tuple[Any, list[Peer]]:
    """Run a program on rank 0 while the others answer; what it returns, and all ranks. `kill` is (rank, when)."""
    peers: dict[int, Peer] = {}

    def live(fabric: SimFabric) -> Any:
        peer = peers[fabric.rank] = Peer(fabric)
        if fabric.rank > 0:
            fabric.wait(lambda: peer.over, "the end", timeout=None)
            return None
        result = program(peer)
        for rank in range(1, ranks):
            fabric.send(rank, Stop("finished", ""))
        return result

    simulation = Simulation([0] * ranks, [1 << 16] * ranks, seed, latency)
    if kill is not None:
        simulation.kill(*kill)
    results = simulation.run(live, limit=200.0)
    return results[0], [peers[rank] for rank in range(ranks)]
