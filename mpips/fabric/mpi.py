"""The fabric over MPI: shared-memory windows on a node, `Rget` between nodes, small messages, back-off when idle."""

import contextlib
import ctypes
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import mpi4py
import numpy as np

mpi4py.rc.thread_level = "funneled"

from mpi4py import MPI  # noqa: E402 - the thread level must be set before MPI starts

from mpips.fabric import ulfm  # noqa: E402
from mpips.fabric.arena import Allocator  # noqa: E402
from mpips.fabric.base import Fabric  # noqa: E402

T = TypeVar("T")
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

TAG = 7
PAGE = 4096
SHARED_MEMORY = "/dev/shm"
SPIN_SECONDS = 20e-6
YIELD_SECONDS = 100e-6
READS_TESTED = 16  # of those under way, each time: they complete about in order
IDLE_SHARE = 0.1  # sleep for a tenth of the time that nothing has happened: a late answer is late by a tenth at most
LONGEST_SLEEP = 20e-3
SHORTEST_SLEEP = 0.5e-3
CLOSE_SECONDS = 5.0
PR_SET_TIMERSLACK = 29


class World(NamedTuple):
    """What a rank knows at first: itself, the node number of every rank, the least free shared memory of any node."""

    rank: int
    nodes: list[int]
    shared_memory: int


def world() -> World:
    """Find out. Collective."""
    comm = MPI.COMM_WORLD
    with_me = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
    leader = np.array([comm.rank], np.int64)
    with_me.Bcast(leader, 0)
    with_me.Free()
    leaders = np.empty(comm.size, np.int64)
    comm.Allgather(leader, leaders)
    numbers = {int(first): node for node, first in enumerate(np.unique(leaders))}
    free = np.array([shutil.disk_usage(SHARED_MEMORY).free], np.int64)
    comm.Allreduce(MPI.IN_PLACE, free, MPI.MIN)
    return World(comm.rank, [numbers[int(first)] for first in leaders], int(free[0]))


def library() -> str:
    """Name and version of the MPI library."""
    first = MPI.Get_library_version().partition(",")[0].partition("\n")[0]
    return " ".join(first.strip("\0").split())


class MpiFabric(Fabric):
    """A rank of `MPI.COMM_WORLD`; making one is collective.

    Parameters
    ----------
    nodes : node number of every rank, from `world`; ranks given different numbers reach each other by `Rget` alone.
    size : bytes of this rank's arena.
    remedy : what the user can do when the arena is full.
    """

    def __init__(self, nodes: list[int], size: int, remedy: str = "") -> None:
        super().__init__()
        comm = MPI.COMM_WORLD
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank, self.size, self.nodes = comm.rank, comm.size, nodes
        self.survives = ulfm.ENABLED
        self._comm = comm
        self._status = MPI.Status()
        self._sends: deque[tuple[MPI.Request, bytes]] = deque()
        self._reads: deque[tuple[MPI.Request, Bytes, Callable[[], None]]] = deque()
        node = MPI.Intracomm(comm.Split(nodes[comm.rank], comm.rank))
        size = max(PAGE, (size + PAGE - 1) // PAGE * PAGE)
        self._shared = MPI.Win.Allocate_shared(size, 1, comm=node)
        mine = [rank for rank in range(comm.size) if nodes[rank] == nodes[comm.rank]]
        spans = [self._shared.Shared_query(i)[0] for i in range(node.size)]
        start = spans[0].address
        self._places: list[int | None] = [None] * comm.size
        for rank, span in zip(mine, spans, strict=True):
            self._places[rank] = span.address - start
        total = spans[-1].address + spans[-1].nbytes - start
        self.memory = np.asarray(MPI.memory.fromaddress(start, total)).view(np.uint8)
        own = self._places[comm.rank]
        assert own is not None
        self.arena = self.memory[own : own + size]
        self.space = Allocator(size, remedy)
        node.Free()
        self._window: MPI.Win | None = None
        if len(set(nodes)) > 1:
            self._window = MPI.Win.Create(self.arena, 1, comm=comm)
            self._window.Lock_all()
        self._meet()
        comm.Barrier()
        _unlink_mapped_segments()
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0)  # ns: short sleeps are to be short

    def _meet(self) -> None:
        """Exchange a message, and a read between nodes, with every peer: connections are made at the first contact."""
        comm, nothing = self._comm, np.zeros(1, np.uint8)
        got = np.zeros(comm.size, np.uint8)
        requests = [comm.Irecv(got[peer : peer + 1], peer, TAG + 1) for peer in range(comm.size)]
        requests += [comm.Isend(nothing, peer, TAG + 1) for peer in range(comm.size)]
        MPI.Request.Waitall(requests)
        if self._window is not None:
            for peer in range(comm.size):
                read = self._rget(peer, 0, got[peer : peer + 1])
                while not read.Test():
                    comm.Iprobe(peer, TAG + 1)  # fails when the peer is dead; the read would never end
                    os.sched_yield()

    def now(self) -> float:
        return time.perf_counter()

    def place(self, rank: int) -> int | None:
        return self._places[rank]

    def _rget(self, rank: int, offset: int, data: Bytes) -> MPI.Request:
        assert self._window is not None
        return self._window.Rget([data, MPI.BYTE], rank, [offset, data.size, MPI.BYTE])

    def _read(self, rank: int, offset: int, out: np.ndarray[Any, Any], then: Callable[[], None]) -> None:
        data = out.view(np.uint8).reshape(-1)
        self._reads.append((self._rget(rank, offset, data), data, then))  # the buffer must live until it is complete

    def _arrived(self) -> Callable[[], None] | None:
        for _ in range(min(READS_TESTED, len(self._reads))):
            if self._reads[0][0].Test():
                return self._reads.popleft()[2]
            self._reads.rotate(-1)
        return None

    def _post(self, dest: int, data: bytes) -> None:
        try:
            request = self._comm.Isend([data, MPI.BYTE], dest, TAG)
            if not request.Test():
                self._sends.append((request, data))
        except MPI.Exception as error:
            self._learn(error)

    def _poll(self) -> tuple[int, bytes] | None:
        try:
            while self._sends and self._sends[0][0].Test():
                self._sends.popleft()
            message = MPI.Message.Iprobe(self._comm, MPI.ANY_SOURCE, TAG, self._status)
            if message is None:
                return None
            source = self._status.Get_source()
            data = bytearray(self._status.Get_count(MPI.BYTE))
            message.Recv([data, MPI.BYTE])
            return source, bytes(data)
        except MPI.Exception as error:
            self._learn(error)
            return None

    def _learn(self, error: MPI.Exception) -> None:
        failed = ulfm.failed_ranks(self._comm)
        if not failed and not ulfm.is_failure(error):
            raise error
        self._sends = deque((request, data) for request, data in self._sends if not _broken(request))
        for rank in failed:
            self._note_lost(rank)

    def _relax(self, idle: float) -> None:
        if idle > YIELD_SECONDS:
            time.sleep(min(LONGEST_SLEEP, IDLE_SHARE * idle))
        elif idle > SPIN_SECONDS:
            os.sched_yield()

    def aside(self, work: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Leave together with all others; False when not every rank came in time, or one is dead.

        Then MPI can't be finalized: leave by `os._exit`.
        """
        deadline = self.now() + seconds
        everyone = None
        try:
            while not self.lost and self.now() < deadline:
                self._poll()
                if everyone is None and not self._sends:
                    everyone = self._comm.Ibarrier()
                if everyone is not None and everyone.Test():
                    if self._window is not None:
                        self._window.Unlock_all()
                        self._window.Free()
                    return True
                time.sleep(SHORTEST_SLEEP)
        except MPI.Exception as error:  # a rank died on the way out
            self._learn(error)
        return False


def _broken(request: MPI.Request) -> bool:
    try:
        return bool(request.Test())
    except MPI.Exception:
        return True


def _unlink_mapped_segments() -> None:
    """Take the names of our shared-memory segments out of /dev/shm: everyone on the node has mapped them by now.

    The memory lives until the last process lets go of it, and so goes away by itself however the job ends.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(SHARED_MEMORY + "/") and not fields[5].endswith("(deleted)"):
            path = Path(fields[5])
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a run's own folder, once it is empty
                path.parent.rmdir()
