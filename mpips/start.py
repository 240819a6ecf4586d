"""How a job starts under MPI: from a job file (`python -m mpips JOB`), or from a program that calls `mpips.run`."""

import atexit
import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mpips.checkpoint.spec import Consistency
from mpips.errors import Error
from mpips.plan import Delay, Group, Memory, OnWorkerLoss, Plan, Scale, arena_of_any_role, arenas, check_scales
from mpips.record import forget_end
from mpips.rule import fitted
from mpips.table import TableSpec
from mpips.views.view import Roles, assign

if TYPE_CHECKING:
    from mpips.job import Job
    from mpips.rank import Outcome, Rank
    from mpips.scheduler.conductor import Conductor

PR_SET_PDEATHSIG = 1
OF_NETWORKS = 64  # workloads of a worker in an epoch: batches of images take long
REMEDY = "set [memory] {role} in the job file"


def run_plan(plan: Plan, resume: bool = False) -> "Outcome":
    """Live the life of this process's rank; collective over `MPI.COMM_WORLD`.

    Returns how the job ended; on the scheduler's rank with what the programs returned. A job that does not finish ends
    this process; the scheduler's has exit code 1.
    """
    outcome, together = _live(plan, resume)
    if not together:  # a spare is dead: MPI can't be finalized any more
        atexit.register(os._exit, 0)
    return outcome


def _live(plan: Plan, resume: bool) -> "tuple[Outcome, bool]":
    """As `run_plan`; and whether all ranks have left together, so that MPI can be finalized."""
    _die_with_parent()
    from mpips.rank import Rank  # what takes long is done before MPI starts

    from mpips.fabric.mpi import MpiFabric, library, world  # isort: skip - MPI starts here, for one thread
    from mpi4py import MPI  # isort: skip

    from mpips.fabric import bridge, ulfm

    if bridge.is_child():
        _come(plan)
    try:
        here = world()
        nodes = list(range(len(here.nodes))) if plan.separate_nodes else here.nodes
        # where the first death ends the job nobody could use a copy
        view = assign(nodes, plan.roles, plan.others, plan.replicas if ulfm.ENABLED else 0, plan.team)
        check_scales(plan.scales, view)
        sizes = arenas(plan.memory, view, here.nodes, here.shared_memory, plan.data is not None)
        role = view.role(here.rank).replace(" ", "_")
        remedy = REMEDY.format(role="server, data_server or worker" if role == "spare" else role)
        if here.rank == 0:
            forget_end(plan.run)
        signs = None if plan.separate_nodes else (plan.network.heartbeat, plan.network.interface)
        fabric = MpiFabric(nodes, sizes[here.rank], remedy, signs=signs)
    except MPI.Exception as error:
        _complain("failed", f"MPI did not start: {error.Get_error_string()}")
        os._exit(1)
    except Error as error:  # the same on every rank
        if here.rank == 0:
            _complain("failed", str(error))
        leave(True, 1)
    rank = Rank(fabric, view, plan, resume, library())
    outcome = _lead(rank)
    together = fabric.close()
    # mpirun takes a rank that leaves with a code other than 0 for a reason to go at once: one does, when all is said
    alive = set(range(fabric.size)) - fabric.lost
    scheduler = rank.view.scheduler
    speaks = here.rank == (scheduler if scheduler in alive else min(alive))
    if outcome.exit != "finished":
        told = plan.run is not None and "MPIPS_RUN" in os.environ  # `mpips run` reads the result and says it
        if speaks and not told:
            _complain(outcome.exit, outcome.reason)
        leave(together, 1 if speaks else 0)
    return outcome, together


def leave(together: bool, code: int) -> NoReturn:
    """End this process, when all others end, too, if they leave `together`.

    Not by the interpreter: a data server's thread may still be reading, and taking numba down takes a quarter of a
    second.
    """
    from mpi4py import MPI

    sys.stdout.flush()
    sys.stderr.flush()
    if together:
        MPI.Finalize()
        if MPI.get_vendor()[0] != "Open MPI":  # MPICH takes leave of its launcher in C's exit: without, it has crashed
            ctypes.PyDLL(None).exit(code)
    os._exit(code)


def _lead(rank: "Rank") -> "Outcome":
    """Live the life of a rank; a process whose rank is lost, or in which something is wrong, ends here."""
    _on_signals(rank.wish_to_end)
    try:
        outcome = rank.live()
        if outcome.exit == "lost":
            os.kill(os.getpid(), signal.SIGKILL)  # any other way out would end the job
    except BaseException:
        traceback.print_exc()
        os.kill(os.getpid(), signal.SIGKILL)  # the others learn of it by that alone
        raise
    return outcome


def _come(plan: Plan) -> NoReturn:
    """The life of a process that has come to a running job."""
    from mpips.fabric import Deadline, PeerLost, bridge
    from mpips.fabric.mpi import MpiFabric, library
    from mpips.rank import join

    birth = bridge.be_born()
    fabric = MpiFabric(birth.nodes, arena_of_any_role(plan.memory), REMEDY.format(role="server"), birth)
    try:
        rank = join(fabric, plan, library())
    except (Deadline, PeerLost):
        os.kill(os.getpid(), signal.SIGKILL)
        raise
    outcome = _lead(rank)
    if outcome.exit != "finished" and rank.view.scheduler == fabric.rank and "MPIPS_RUN" not in os.environ:
        _complain(outcome.exit, outcome.reason)
    fabric.close()
    os._exit(int(outcome.exit != "finished" and rank.view.scheduler == fabric.rank))


def run(
    program: "Callable[[Any], Any]",
    tables: Sequence[TableSpec],
    *,
    roles: Roles | None = None,
    delay: Delay = None,
    groups: "Mapping[str, tuple[Callable[[Any], Any], int]] | None" = None,
    conduct: "Callable[[Conductor], Any] | None" = None,
    run: str | Path | None = None,
    save_every: float = 0.0,
    consistency: Consistency = "fuzzy",
    replicas: int = 1,
    on_worker_loss: OnWorkerLoss = "replace",
    patience: float | None = None,
    copy_share: float = 0.1,
    scales: Sequence[Scale] = (),
    memory: Memory | None = None,
    threads: int = 0,
    separate_nodes: bool = False,
    trace: Mapping[str, Sequence[int]] | None = None,
    resume: bool = False,
) -> Any:
    """Run a program on every worker of the MPI job that this process is a rank of.

    Parameters
    ----------
    program : called with the `Worker`; its result may be anything that msgpack can hold.
    tables : the tables, of any names.
    roles : ranks for each role; by default about a third of them serve.
    delay : pushes of a worker to a table that may be unfinished when it pulls from it: 0 sequential, None (any number)
        eventual; "auto": the scheduler chooses, by how fast the objective falls that workers `report`.
    groups : more workers that run other programs over the same tables at the same time: by the group's name a program
        and a number of workers. When the main program is over they are stopped, if they have not returned.
    conduct : a program for the scheduler's rank, called with a `Conductor`; the job lasts until it returns, too.
    run : folder for checkpoints and the log; None leaves no files.
    save_every : seconds between checkpoints; 0: one at the end.
    consistency : of a checkpoint: "cut", all servers' state at one clock, while all go on; "fuzzy", of every shard what
        it is when it is written.
    replicas : copies of every shard besides the first, as far as there are servers for them: so many servers may die at
        once and nothing is lost.
    on_worker_loss : what becomes of a dead worker's work: "replace", a spare takes its place and runs the program from
        its beginning; "redistribute", the other workers do what was handed out to it; "ignore", nobody does. A group
        besides the main one goes on without a worker that has no spare.
    patience : seconds that a server or the scheduler may be silent before it is taken for dead though its process
        lives; None: any time.
    copy_share : share of a server's time that goes into copying shards in the background.
    scales : changes of the numbers of servers and workers, planned beforehand.
    memory : sizes of the arenas.
    threads : kernels that a server may run at once; 0: its share of the node's cores.
    separate_nodes : treat every rank as a node of its own, to try the path between nodes.
    trace : by table, keys whose updates are recorded in `run`, for `mpips trace`.
    resume : go on from the newest checkpoint in `run`.

    Returns
    -------
    list or None
        On the scheduler's rank (0, unless that has died) what the workers of the main group returned, in their order;
        with `conduct` what that returned. None on the other ranks.
    """
    plan = Plan(
        program=program,
        tables=lambda features: [fitted(table) for table in tables],
        roles=replace_data_servers(roles or Roles()),
        delay=delay,
        groups={name: Group(*group) for name, group in (groups or {}).items()},
        conduct=conduct,
        run=Path(run) if run is not None else None,
        saves=run is not None,
        save_every=save_every,
        consistency=consistency,
        replicas=replicas,
        on_worker_loss=on_worker_loss,
        patience=patience,
        copy_share=copy_share,
        scales=tuple(scales),
        memory=memory or Memory(),
        threads=threads,
        separate_nodes=separate_nodes,
        trace=trace or {},
    )
    outcome = run_plan(plan, resume)
    return outcome.conducted if conduct is not None else outcome.results or None


def replace_data_servers(roles: Roles) -> Roles:
    """The roles of a job without data."""
    return Roles(servers=roles.servers, data_servers=0, workers=roles.workers, spares=roles.spares)


def _complain(exit_: str, reason: str) -> None:
    print(f"mpips: {exit_}: {reason}", file=sys.stderr, flush=True)  # noqa: T201


def _die_with_parent() -> None:
    """Have the kernel end this process when its launcher is killed."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    faulthandler.register(signal.SIGUSR2, all_threads=True)


def _on_signals(wish: Callable[[str], None]) -> None:
    """SIGINT, SIGTERM and SIGUSR1 ask the scheduler's rank for a checkpoint and the end; other ranks wait to be
    told.
    """

    def handler(number: int, frame: Any) -> None:
        wish(f"{signal.Signals(number).name} received")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, handler)


def main(arguments: Sequence[str]) -> None:
    """``python -m mpips JOB [--set a.b=value …] [--resume]``, under mpirun."""
    from argparse import ArgumentParser

    parser = ArgumentParser(prog="python -m mpips", description="Run one rank of a job; start it with mpirun.")
    parser.add_argument("job", type=Path, help="the job file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", help="change a value of the job file"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    options = parser.parse_args(arguments)
    try:
        plan = plan_of(options.job, options.set)
    except Error as error:
        from mpi4py import MPI

        if MPI.COMM_WORLD.rank == 0:
            print(f"mpips: {error}", file=sys.stderr, flush=True)  # noqa: T201
        leave(True, 2)
    _, together = _live(plan, options.resume)
    leave(together, 0)


def plan_of(path: Path, overrides: Sequence[str]) -> Plan:
    """Read a job file.

    Raises
    ------
    JobFileError
        with every mistake in it.
    """
    from mpips.algorithms.neural.job import network_of
    from mpips.job import GroupSection, load
    from mpips.program import PROGRAMS, WATCH

    job = load(path, overrides)
    network = network_of(job)
    program, watch = _linear(job) if network is None else (network.train, network.watch)

    def tables(features: int) -> list[TableSpec]:
        made = [section.spec(name, features) for name, section in job.tables.items()]
        return made if network is None else [*network.tables, *made]

    def group(section: GroupSection) -> Group:
        of_group = watch if section.program == WATCH else PROGRAMS[section.program]
        return Group(of_group, section.workers, section.bound)

    groups = {name: group(section) for name, section in job.groups.items()}
    return Plan(
        program=program,
        tables=tables,
        roles=job.roles,
        data=job.data,
        base=job.base,
        passes=job.algorithm.passes,
        evaluate_every=job.algorithm.evaluate_every,
        epoch_share=job.algorithm.epoch_share,
        workloads=8 if network is None else OF_NETWORKS,
        seed=job.data.seed,
        model=job.algorithm.table,
        classes=network.classes if network is not None else None,
        delay=job.consistency.bound,
        groups=groups,
        keeps_rows=job.algorithm.solver == "block",
        run=job.run_folder,
        saves=True,
        save_every=job.checkpoint.every,
        keep=job.checkpoint.keep,
        consistency=job.checkpoint.consistency,
        save_rate=job.checkpoint.rate,
        compression=job.checkpoint.compression,
        replicas=job.recovery.replicas,
        team=job.team,
        on_worker_loss=job.recovery.on_worker_loss,
        patience=job.recovery.limit,
        copy_share=job.recovery.copy_share,
        scales=job.scales,
        memory=job.arena_sizes,
        threads=job.server.threads,
        separate_nodes=job.fabric.separate_nodes,
        network=job.network,
        trace={name: section.trace for name, section in job.tables.items() if section.trace},
        text=job.text,
        about=network.about if network is not None else {},
    )


def _linear(job: "Job") -> "tuple[Callable[[Any], None], Callable[[Any], None]]":
    """The programs of workers that train a linear model, and of those that watch it."""
    from mpips.algorithms import linear
    from mpips.algorithms.settings import BlockSettings

    table, passes, seed = job.algorithm.table, job.algorithm.passes, job.data.seed
    assert table is not None

    def solve(worker: Any) -> None:
        linear.solve(worker, table, passes, seed, job.algorithm.block or BlockSettings())

    def train(worker: Any) -> None:
        linear.train(worker, table)

    def watch(worker: Any) -> None:
        linear.watch(worker, table)

    return solve if job.algorithm.solver == "block" else train, watch
