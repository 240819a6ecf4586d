"""How a new process gets connected to the ranks of a running MPI job, one pair after the other.

MPI's own ways are collective: a death in their midst crashes the survivors. Here a communicator is made for three at a
time: the new process, its parent, and one other rank, in a millisecond. A rank that is dead already does no harm, as
the two that know each other first make a communicator from a group that it is not in.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

from mpips.fabric import ulfm

TAG = 11
LEAVE, BEGIN = -2, -1  # what a child is told instead of a peer that comes
SECONDS = 20.0  # nothing here takes so long, also on a loaded machine
START = (  # MPI first: the parent waits until it is there
    "import mpi4py; mpi4py.rc.thread_level = 'funneled'; from mpi4py import MPI; import runpy, sys; "
    "how, what, *rest = sys.argv[1:]; sys.argv = [what, *rest]; "
    "runpy.run_module(what, run_name='__main__', alter_sys=True) if how == 'module' "
    "else runpy.run_path(what, run_name='__main__')"
)


class Link(NamedTuple):
    """A communicator, and the job's rank of each of its processes."""

    comm: MPI.Intracomm
    ranks: list[int]


@contextmanager
def deadline(what: str) -> Iterator[None]:
    """End this process, for the others to see, when something that nothing can interrupt takes too long."""

    def end() -> None:
        print(f"mpips: {what} takes longer than {SECONDS:g} s; this process ends", file=sys.stderr, flush=True)  # noqa: T201
        os.kill(os.getpid(), signal.SIGKILL)

    timer = threading.Timer(SECONDS, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _revoked(comm: MPI.Comm) -> Iterator[None]:
    """When something fails nobody else is to wait in this communicator."""
    try:
        yield
    except MPI.Exception:
        ulfm.revoke(comm)
        raise


def _merge(between: MPI.Intercomm, high: bool) -> MPI.Intracomm:
    between.Set_errhandler(MPI.ERRORS_RETURN)
    with _revoked(between):
        merged = between.Merge(high)
    merged.Set_errhandler(MPI.ERRORS_RETURN)
    return merged


def _connect(comm: MPI.Intracomm, other: int) -> None:
    """Exchange a message: the connection is made at the first."""
    word = np.zeros(1, np.int64)
    comm.Sendrecv([word, MPI.INT64_T], other, TAG, [np.zeros(1, np.int64), MPI.INT64_T], other, TAG)


def _pair(group: MPI.Group, rank: int, peer: int) -> MPI.Intracomm:
    """A communicator of the two processes of a group: `peer`, and the parent of what becomes `rank`."""
    return MPI.Intracomm.Create_from_group(group, f"mpips {rank} {peer}", MPI.INFO_NULL, MPI.ERRORS_RETURN)


def meet(rank: int, group: MPI.Group, parent: int, me: int) -> Link:
    """The peer's part; `group` has the peer and the parent, in this order."""
    with deadline(f"rank {me}: to meet rank {rank}"):
        pair = _pair(group, rank, me)
        with _revoked(pair):
            merged = _merge(MPI.COMM_SELF.Create_intercomm(0, pair, 1, TAG), False)
            _connect(merged, 2)
            return Link(merged, [me, parent, rank])


class Child:
    """A process that this one has started.

    Parameters
    ----------
    rank : what it becomes.
    nodes : node number of every rank there is, the child included.
    parent : this rank.
    """

    def __init__(self, rank: int, nodes: list[int], parent: int) -> None:
        import __main__

        module = __main__.__spec__.name.removesuffix(".__main__") if __main__.__spec__ is not None else None
        program = ["module", module, *sys.argv[1:]] if module else ["file", *sys.argv]
        info = MPI.Info.Create()
        info.Set("PMIX_HOST", MPI.Get_processor_name())
        info.Set("PMIX_MAPBY", "slot:oversubscribe")
        info.Set("PMIX_WDIR", os.getcwd())
        self.rank = rank
        self._parent = parent
        self._hello = np.array([rank, parent, len(nodes), *nodes], np.int64)
        with deadline(f"rank {parent}: to start a process"):
            self._line = MPI.COMM_SELF.Spawn(sys.executable, ["-c", START, *program], maxprocs=1, info=info)
            self._line.Set_errhandler(MPI.ERRORS_RETURN)
            self._line.Send([self._hello, MPI.INT64_T], 0, TAG)
        self._comm: MPI.Intracomm | None = None

    def is_ready(self) -> bool:
        """Whether it listens; raises `MPI.Exception` when it is dead."""
        return bool(self._line.Iprobe(0, TAG))

    def adopt(self) -> Link:
        """Make the communicator of the two."""
        with deadline(f"rank {self._parent}: to meet its child"):
            ready = np.zeros(1, np.int64)
            self._line.Recv([ready, MPI.INT64_T], 0, TAG)
            self._comm = _merge(self._line, False)
        return Link(self._comm, [self._parent, self.rank])

    def introduce(self, peer: int, group: MPI.Group) -> None:
        """The parent's part; `group` has the peer and the parent, in this order."""
        assert self._comm is not None
        with deadline(f"rank {self._parent}: to introduce rank {peer} to rank {self.rank}"):
            pair = _pair(group, self.rank, peer)
            with _revoked(pair):
                self._tell(peer)
                _merge(self._comm.Create_intercomm(0, pair, 0, TAG), True)

    def begin(self) -> None:
        """Let it begin."""
        self._tell(BEGIN)

    def leave(self) -> None:
        """Have it end."""
        self._tell(LEAVE)

    def _tell(self, word: int) -> None:
        if self._comm is not None:
            self._comm.Send([np.array([word], np.int64), MPI.INT64_T], 1, TAG)


class Birth(NamedTuple):
    """What a child knows when it begins: itself, its parent, the node number of every rank, and how to reach those that
    live.
    """

    rank: int
    parent: int
    nodes: list[int]
    links: dict[int, Link]


def is_child() -> bool:
    """Whether this process was started by a rank of a running job."""
    return bool(MPI.Comm.Get_parent() != MPI.COMM_NULL)


def be_born() -> Birth:
    """The child's part. Ends this process when nothing comes of it."""
    line, status, word = MPI.Comm.Get_parent(), MPI.Status(), np.zeros(1, np.int64)
    line.Set_errhandler(MPI.ERRORS_RETURN)
    try:
        with deadline("a new process: to be introduced"):
            line.Probe(0, TAG, status)
            hello = np.zeros(status.Get_count(MPI.INT64_T), np.int64)
            line.Recv([hello, MPI.INT64_T], 0, TAG)
            rank, parent, _, *nodes = hello.tolist()
            line.Send([word, MPI.INT64_T], 0, TAG)
            comm = _merge(line, True)
            links = {parent: Link(comm, [parent, rank])}
            while True:
                comm.Recv([word, MPI.INT64_T], 0, TAG)
                peer = int(word[0])
                if peer == LEAVE:
                    os.kill(os.getpid(), signal.SIGKILL)
                if peer == BEGIN:
                    return Birth(rank, parent, nodes, links)
                between = comm.Create_intercomm(0, MPI.Intracomm(MPI.COMM_NULL), 0, TAG)
                merged = _merge(between, True)
                _connect(merged, 0)
                links[peer] = Link(merged, [peer, parent, rank])
    except MPI.Exception:
        os.kill(os.getpid(), signal.SIGKILL)
        raise
