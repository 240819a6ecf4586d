"""What a job is to its ranks: from a job file, or from a Python program that calls `mpips.run`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpips.dataserver.spec import DataSpec
from mpips.scheduler.view import Roles
from mpips.table import TableSpec

if TYPE_CHECKING:
    from mpips.worker.worker import Worker

MB = 1 << 20


@dataclass(frozen=True)
class Memory:
    """Bytes of the arena of each role's ranks. Only what is used of it takes memory."""

    server: int = 1024 * MB
    data_server: int = 1024 * MB
    worker: int = 256 * MB
    scheduler: int = 1 * MB


@dataclass(frozen=True)
class Plan:
    """A job.

    Attributes
    ----------
    program : what every worker runs; its result (anything msgpack can hold) goes to the scheduler.
    tables : the tables, once it is known how many features the data have.
    roles : ranks for each role.
    data : what the data servers read, relative to `base`; None for a job without data.
    passes, evaluate_every, seed : epochs, epochs between evaluations (0: only after the last), seed of the batches' order.
    model : the table whose non-zeros an evaluation counts.
    delay : pushes that a worker may have in flight when it pulls; None: any number.
    run : the run folder; None for a job that leaves no files.
    saves, save_every, keep : whether there are checkpoints; seconds between them (0: only at the end); generations kept.
    memory : sizes of the arenas.
    threads : kernels that a server may run at once; 0: the cores of the node shared evenly among its ranks.
    separate_nodes : treat every rank as a node of its own.
    text : the job file, kept in checkpoints.
    """

    program: "Callable[[Worker], Any]"
    tables: Callable[[int], list[TableSpec]]
    roles: Roles = field(default_factory=Roles)
    data: DataSpec | None = None
    base: Path = field(default_factory=Path)
    passes: int = 1
    evaluate_every: int = 0
    seed: int = 0
    model: str | None = None
    delay: int | None = None
    run: Path | None = None
    saves: bool = False
    save_every: float = 0.0
    keep: int = 2
    memory: Memory = field(default_factory=Memory)
    threads: int = 0
    separate_nodes: bool = False
    text: str = ""
