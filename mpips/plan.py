"""What a job is to its ranks: from a job file, or from a Python program that calls `mpips.run`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mpips.checkpoint.spec import Consistency, Writing
from mpips.dataserver.spec import DataSpec
from mpips.errors import Error
from mpips.fabric.spec import NetworkSpec
from mpips.table import TableSpec
from mpips.views.view import MAIN, Roles, RolesError, View

if TYPE_CHECKING:
    from mpips.scheduler.conductor import Conductor
    from mpips.worker.worker import Worker

Delay = int | None | Literal["auto"]
OnWorkerLoss = Literal["replace", "redistribute", "ignore"]

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
MOST = 0.9  # of a node's shared memory for all arenas together: Open MPI refuses more than 95 %, used or not


def arenas(memory: Memory, view: View, nodes: Sequence[int], free: int, data: bool = True) -> list[int]:
    """Bytes of every rank's arena.

    Sizes that were not chosen are as `AUTOMATIC` has them, or smaller when a node has little shared memory. A spare may
    take any role, so its arena is as large as the largest of these; since spares use nothing of theirs before they have
    a role, what fits is reckoned with one of them at a time, and where not all fit they share what the others leave.

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

    names = ["server", "worker", *["data_server"] * data]
    wish = {name: getattr(memory, name) or getattr(AUTOMATIC, name) for name in names}
    largest = max(names, key=lambda name: wish[name])
    sizes = [OF_OTHERS] * len(nodes)
    for node in set(nodes):
        here = [rank for rank, where in enumerate(nodes) if where == node]
        spares = [rank for rank in here if rank in view.spares]
        roles = {rank: name for rank in here if (name := role(rank))}
        wanted = [*roles.values(), *[largest] * bool(spares)]
        fixed = sum(getattr(memory, name) or 0 for name in wanted) + OF_OTHERS * (len(here) - len(wanted))
        if fixed > free:
            raise SharedMemoryError(
                f"memory: the arenas of a node take {fixed / 1e6:,.0f} MB, /dev/shm has {free / 1e6:,.0f} MB free: "
                "lower [memory] in the job file, or enlarge it: mount -o remount,size=... /dev/shm"
            )
        automatic = sum(wish[name] for name in wanted if getattr(memory, name) is None)
        scale = min(1.0, SHARE * (free - fixed) / max(1, automatic))
        size = {name: getattr(memory, name) or int(wish[name] * scale) for name in names}
        for rank, name in roles.items():
            sizes[rank] = size[name]
        left = int(MOST * free) - sum(sizes[rank] for rank in here if rank not in spares)
        for rank in spares:
            sizes[rank] = max(OF_OTHERS, min(max(size.values()), left // len(spares)))
    return sizes


def arena_of_any_role(memory: Memory) -> int:
    """Bytes of the arena of a rank that comes to a running job; it takes no shared memory."""
    names = ("server", "data_server", "worker")
    sizes: list[int] = [getattr(memory, name) or getattr(AUTOMATIC, name) for name in names]
    return max(sizes)


class Scale(NamedTuple):
    """A change of the job's size, planned beforehand: so many servers and workers, None for as many as there are.

    It is made `at` seconds after training began, or, of a job whose batches are handed out, when an `epoch` (counted
    from 1) begins.
    """

    at: float | None = None
    epoch: int | None = None
    servers: int | None = None
    workers: int | None = None


def check_scales(scales: Sequence[Scale], view: View) -> None:
    """See whether a job has the ranks that the planned changes of its size need.

    Raises
    ------
    RolesError
        naming the first that can't be made, even if no rank is lost until then.
    """
    servers, workers = len(view.servers), len(view.groups[MAIN])
    there = servers + workers + len(view.spares)
    fewest_servers = min([servers, *(scale.servers for scale in scales if scale.servers)])
    fewest_workers = min([workers, *(scale.workers for scale in scales if scale.workers)])
    for index, scale in enumerate(scales):
        needed = (scale.servers or fewest_servers) + (scale.workers or fewest_workers)
        if needed > there:
            raise RolesError(
                f"plan[{index}]: needs {needed - there} ranks more than the job has: "
                f"set roles.spares = {len(view.spares) + needed - there}"
            )


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
    epoch_share : of an epoch's batches; when they are done the next begins, and what is left is not waited for.
    workloads : that a worker gets in an epoch, about; fewer where they would be of more than 64 batches.
    keeps_rows : the program keeps the rows that it is given: they are handed out once, and again when the job goes on
    from a checkpoint.
    model : the table whose non-zeros an evaluation counts.
    classes : that the data's rows have, where they are told apart by class; None: their label is 0 or 1.
    delay : iterations that may be unfinished when the next begins; None: any number; "auto": the scheduler chooses.
    An iteration is a batch, or for a worker's own program a push to a table.
    run : the run folder; None for a job that leaves no files.
    consistency : of a generation; see `mpips.checkpoint.spec.CheckpointSpec`.
    saves, save_every, keep : whether there are checkpoints; seconds between them (0: only at the end); generations
    kept.
    save_rate, compression : megabytes a second that a server may write (0: any); gzip's level (0: none).
    replicas : copies of every shard besides the first, as far as there are servers for them.
    team : workers of the main group that have a copy of the model together, and work on the same batches.
    on_worker_loss : what becomes of a dead worker's work; see `mpips.scheduler.spec.RecoverySpec`.
    patience : seconds that a server, data server or scheduler may be silent before it is taken for dead; None: any.
    copy_share : share of a server's time that goes into copying shards in the background.
    scales : changes of the numbers of servers and workers, planned beforehand.
    memory : sizes of the arenas.
    threads : kernels that a server may run at once; 0: the cores of the node shared evenly among its ranks.
    separate_nodes : treat every rank as a node of its own.
    network : between hosts.
    trace : by table, keys whose updates servers record in the run folder, or the names of features.
    text : the job file, kept in checkpoints.
    about : what else a reader of a checkpoint needs to know, kept there, too; anything that JSON can hold.
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
    epoch_share: float = 1.0
    model: str | None = None
    classes: int | None = None
    workloads: int = 8
    keeps_rows: bool = False
    delay: Delay = None
    run: Path | None = None
    saves: bool = False
    save_every: float = 0.0
    keep: int = 2
    consistency: Consistency = "fuzzy"
    save_rate: float = 0.0
    compression: int = 0
    replicas: int = 0
    team: int = 1
    on_worker_loss: OnWorkerLoss = "replace"
    patience: float | None = None
    copy_share: float = 0.1
    scales: tuple[Scale, ...] = ()
    memory: Memory = field(default_factory=Memory)
    threads: int = 0
    separate_nodes: bool = False
    network: NetworkSpec = field(default_factory=NetworkSpec)
    trace: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    text: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def traced_names(self) -> list[str]:
        """The features that are to be traced by their names."""
        return sorted({key for keys in self.trace.values() for key in keys if isinstance(key, str)})

    @property
    def writing(self) -> Writing:
        """How servers write checkpoints."""
        return Writing(self.run, self.save_rate, self.compression)

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
