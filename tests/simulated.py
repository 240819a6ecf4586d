"""What the tests of simulated jobs share: a job over `SimFabric`, and what it left."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpips.fabric import Deadline, Fabric, PeerLost
from mpips.fabric.sim import SimFabric, Simulation
from mpips.messages import CreateTables, Message, ToScheduler, decode
from mpips.plan import MB, Memory, Plan
from mpips.rank import Outcome, Rank, join
from mpips.record import forget_end
from mpips.rule import fitted
from mpips.server.server import Server
from mpips.table import TableSpec
from mpips.views.view import Roles, View, assign
from mpips.worker.worker import Worker

SMALL = Memory(server=4 * MB, data_server=4 * MB, worker=MB)
FAST = (5e-6, 50e-6)
SLOW = (1e-3, 5e-3)  # seconds: a job lasts long enough for a death in its midst to be seen
PLACES: dict[str, Callable[[int], list[int]]] = {
    "one node": lambda ranks: [0] * ranks,
    "nodes of their own": lambda ranks: list(range(ranks)),
    "two nodes": lambda ranks: [rank % 2 for rank in range(ranks)],
}


def table(name: str = "w", **settings: Any) -> TableSpec:
    """A table that knows the slots of its rule."""
    return fitted(TableSpec(**{"name": name, "rows": 10_000, **settings}))


def program_plan(program: Callable[[Worker], Any], *tables: TableSpec, **settings: Any) -> Plan:
    """A job without data whose workers run a program."""
    return Plan(program=program, tables=lambda _: list(tables), **{"memory": SMALL, "threads": 1, **settings})


class SimulatedJob:
    """A job's ranks in one process, not started yet.

    Attributes
    ----------
    simulation, view : to arrange for kills and delays.
    ranks : what became `Rank` of each rank.
    outcomes : how each rank saw the job end; None for the dead.
    """

    def __init__(
        self, plan: Plan, nodes: Sequence[int], seed: int, resume: bool = False, latency: tuple[float, float] = FAST
    ) -> None:
        self.view: View = assign(nodes, plan.roles, plan.others, plan.replicas, plan.team)
        self.plan = plan
        self.resume = resume
        self.ranks: dict[int, Rank] = {}
        self.outcomes: list[Outcome | None] = []
        memory = plan.memory
        of_role = {"server": memory.server, "data server": memory.data_server, "worker": memory.worker}
        sizes = [of_role.get(self.view.role(rank)) or SMALL.data_server or MB for rank in range(len(nodes))]
        self.simulation = Simulation(nodes, sizes, seed, latency)

    def run(self, limit: float = 600.0) -> "SimulatedJob":
        """Run it to its end, which must come before `limit` simulated seconds."""

        def live(fabric: SimFabric) -> Outcome:
            if fabric.parent is None:
                self.ranks[fabric.rank] = Rank(fabric, self.view, self.plan, self.resume)
            else:
                try:
                    self.ranks[fabric.rank] = join(fabric, self.plan)
                except (Deadline, PeerLost):
                    fabric.fall()
            return self.ranks[fabric.rank].live()

        forget_end(self.plan.run)
        self.outcomes = self.simulation.run(live, limit)
        return self

    def kill(self, role: str, at: float) -> None:
        """Have a rank that has this role at that time die, if there is one."""

        def those() -> list[int]:
            fabrics = self.simulation.ranks
            living = [rank for rank in self.ranks if not fabrics[rank].dead]
            view = max((self.ranks[rank].view for rank in living), key=lambda view: view.number, default=self.view)
            return [rank for rank in living if view.role(rank) == role]

        self.simulation.kill_one(those, at)

    @property
    def servers(self) -> dict[int, Server]:
        """The servers, for what they hold."""
        return {rank: self.simulation.ranks[rank]._handlers[CreateTables].__self__ for rank in self.view.servers}  # type: ignore[attr-defined]

    @property
    def outcome(self) -> Outcome:
        """What the scheduler made of the job."""
        outcome = self.outcomes[self.view.scheduler]
        assert outcome is not None
        return outcome

    @property
    def results(self) -> list[Any]:
        """What the workers' programs returned, of a job that must have finished."""
        assert self.outcome.exit == "finished", self.outcome.reason
        return self.outcome.results


def run(
    program: Callable[[Worker], Any],
    *tables: TableSpec,
    nodes: Sequence[int],
    seed: int = 1,
    servers: int = 1,
    workers: int | None = None,
    **settings: Any,
) -> SimulatedJob:
    """Run a program on the workers of a simulated job without data."""
    roles = Roles(servers=servers, data_servers=0, workers=workers or len(nodes) - 1 - servers)
    return SimulatedJob(program_plan(program, *tables, roles=roles, **settings), nodes, seed).run()


class Tape:
    """The messages of one type that a rank takes in, in order, or as the scheduler is told; made before the rank
    registers its handlers.
    """

    def __init__(self, fabric: SimFabric, kind: type[Message]) -> None:
        self.messages: list[tuple[int, Any]] = []
        register = fabric.on

        def on(wanted: type[Message], handler: Callable[[int, Any], None]) -> None:
            def handle(source: int, message: Message) -> None:
                said = decode(message.message) if isinstance(message, ToScheduler) else message
                if isinstance(said, kind):
                    self.messages.append((source, said))
                handler(source, message)

            register(wanted, handle if wanted in (kind, ToScheduler) else handler)

        fabric.on = on  # type: ignore[method-assign]


def rest(fabric: Fabric, seconds: float) -> None:
    """Have a rank do nothing, but answer, for some simulated time."""
    until = fabric.now() + seconds
    fabric.wait(lambda: fabric.now() >= until, "the time to pass")


class Count:
    """An algorithm that counts the rows that it is given."""

    def __init__(self, worker):
        self._table = worker.table("w")

    def train(self, batch):
        self._table.push([0], [float(len(batch))])
        return float(len(batch))

    def evaluate(self, batch, histogram):
        histogram[:, 0] += len(batch) // 2
        return 1.0


def count(worker):
    """Have all batches counted, and when everyone has, look at the sum."""
    worker.train(Count(worker))
    worker.sum(1.0).wait()
    return float(worker.table("w").pull([0]).wait()[0])


def libsvm(path: Path, rows: int, features: int, rng: np.random.Generator, per_row: int = 6) -> None:
    """Write random rows whose labels depend on their features."""
    truth = rng.normal(size=features)
    lines = []
    for _ in range(rows):
        keys = np.sort(rng.choice(features, per_row, replace=False))
        values = np.round(rng.normal(size=per_row), 3)
        label = int(rng.random() < 1 / (1 + np.exp(-truth[keys] @ values)))
        lines.append(f"{label} " + " ".join(f"{k}:{v}" for k, v in zip(keys, values, strict=True)))
    path.write_text("\n".join(lines) + "\n")
