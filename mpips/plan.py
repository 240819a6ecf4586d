"""What a job is to its ranks: from a job file, or from a Python program that calls `mpips.run`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mpips.dataserver.spec import DataSpec
from mpips.errors import Error
from mpips.scheduler.view import Roles, View
from mpips.table import TableSpec

if TYPE_CHECKING:
    from mpips.scheduler.conductor import Conductor
    from mpips.worker.worker import Worker

Delay = int | None | Literal["auto"]

MB = 1 << 20


class SharedMemoryError(Error, MemoryError):
    """The arenas do not fit into a node's shared memory."""


@dataclass(frozen=True)
class Memory:
    """Bytes of the arena of each role's ranks; None is chosen by `arenas`. Only what is used of it takes memory."""

    server: int | None = None
    data_server: int | None = None
    worker: int | None = None


AUTOMATIC = Memory(server=1024 * MB, data_server=1024 * MB, worker=256 * MB)
OF_OTHERS = MB
SHARE = 0.8


def arenas(memory: Memory, view: View, nodes: Sequence[int], free: int, data: bool = True) -> list[int]:
    """Bytes of every rank's arena.

    Sizes that were not chosen are as `AUTOMATIC` has them, or smaller when a node has little shared memory.

    Parameters
    ----------
    nodes : node number of every rank.
    free : bytes of shared memory that every node has.
    data : whether the job's data servers have anything to do.

    Raises
    ------
    SharedMemoryError
        when the sizes that were chosen do not fit.
    """

    def role(rank: int) -> str | None:
        if rank in view.servers:
            return "server"
        if rank in view.data_servers and data:
            return "data_server"
        return "worker" if rank in view.workers else None

    roles = [role(rank) for rank in range(len(nodes))]
    chosen = [getattr(memory, name) if name else OF_OTHERS for name in roles]
    sizes = list(chosen)
    for node in set(nodes):
        ranks = [rank for rank, where in enumerate(nodes) if where == node]
        fixed = sum(chosen[rank] or 0 for rank in ranks)
        if fixed > free:
            raise SharedMemoryError(
                f"memory: the arenas of a node take {fixed / 1e6:,.0f} MB, /dev/shm has {free / 1e6:,.0f} MB free: "
                "lower [memory] in the job file, or enlarge it: mount -o remount,size=... /dev/shm"
            )
        free_choice = {rank: getattr(AUTOMATIC, str(roles[rank])) for rank in ranks if chosen[rank] is None}
        scale = min(1.0, SHARE * (free - fixed) / max(1, sum(free_choice.values())))
        for rank, size in free_choice.items():
            sizes[rank] = int(size * scale)
    return sizes


class Group(NamedTuple):
    """Workers that run a program of their own beside the main one, until that is over; `delay` as of a plan."""

    program: "Callable[[Worker], Any]"
    workers: int
    delay: int | None = None


@dataclass(frozen=True)
class Plan:
    """A job.

    Attributes
    ----------
    program : what every worker runs; its result (anything msgpack can hold) goes to the scheduler.
    groups : other workers, by the name of their group; they run other programs over the same tables.
    conduct : what the scheduler's rank runs beside its duties; the job lasts until it returns, too.
    tables : the tables, once it is known how many features the data have.
    roles : ranks for each role.
    data : what the data servers read, relative to `base`; None for a job without data.
    passes, evaluate_every, seed : epochs, epochs between evaluations (0: only after the last), seed of the batches'
    order.
    keeps_rows : the program keeps the rows that it is given: they are handed out once, and again when the job goes on
    from a checkpoint.
    model : the table whose non-zeros an evaluation counts.
    delay : iterations that may be unfinished when the next begins; None: any number; "auto": the scheduler chooses.
    An iteration is a batch, or for a worker's own program a push to a table.
    run : the run folder; None for a job that leaves no files.
    saves, save_every, keep : whether there are checkpoints; seconds between them (0: only at the end); generations
    kept.
    memory : sizes of the arenas.
    threads : kernels that a server may run at once; 0: the cores of the node shared evenly among its ranks.
    separate_nodes : treat every rank as a node of its own.
    text : the job file, kept in checkpoints.
    """

    program: "Callable[[Worker], Any]"
    tables: Callable[[int], list[TableSpec]]
    roles: Roles = field(default_factory=Roles)
    groups: dict[str, Group] = field(default_factory=dict)
    conduct: "Callable[[Conductor], Any] | None" = None
    data: DataSpec | None = None
    base: Path = field(default_factory=Path)
    passes: int = 1
    evaluate_every: int = 0
    seed: int = 0
    model: str | None = None
    keeps_rows: bool = False
    delay: Delay = None
    run: Path | None = None
    saves: bool = False
    save_every: float = 0.0
    keep: int = 2
    memory: Memory = field(default_factory=Memory)
    threads: int = 0
    separate_nodes: bool = False
    text: str = ""

    def delay_of(self, group: str) -> int | None:
        """What the tables of a group's workers begin with: where batches are handed out, the scheduler sees to the
        delay.
        """
        if group in self.groups:
            return self.groups[group].delay
        if self.data is not None and not self.keeps_rows:
            return None
        return 0 if self.delay == "auto" else self.delay

    @property
    def others(self) -> dict[str, int]:
        """Workers of each group besides the main one."""
        return {name: group.workers for name, group in self.groups.items()}
