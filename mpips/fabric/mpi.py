"""The fabric over MPI: shared-memory windows on a node, `Rget` between nodes, small messages, back-off when idle."""

import contextlib
import ctypes
import os
import shutil
import sys
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

from mpips.fabric import beats, bridge, ulfm  # noqa: E402
from mpips.fabric.arena import Allocator  # noqa: E402
from mpips.fabric.base import Fabric, NoBirth  # noqa: E402

T = TypeVar("T")
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

TAG, READ, ANSWER = 7, 9, 10
PAGE = 4096
SHARED_MEMORY = "/dev/shm"
OF_MPICH = "mpich_shm_"  # so begins the name of a segment that all have mapped when MPI has started
SPIN_SECONDS = 20e-6
YIELD_SECONDS = 100e-6
READS_TESTED = 16  # of those under way, each time: they complete about in order
IDLE_SHARE = 0.1  # sleep for a tenth of the time that nothing has happened: a late answer is late by a tenth at most
LONGEST_SLEEP = 20e-3
SHORTEST_SLEEP = 0.5e-3
CLOSE_SECONDS = 5.0
SWITCH_SECONDS = 0.5e-3  # what is done aside waits no longer for its turn, though this rank is busy
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
    _unlink_mapped_segments(OF_MPICH)
    return World(comm.rank, [numbers[int(first)] for first in leaders], int(free[0]))


def library() -> str:
    """Name and version of the MPI library."""
    first = MPI.Get_library_version().partition(",")[0].partition("\n")[0]
    return " ".join(first.strip("\0").split())


class MpiFabric(Fabric):
    """A rank of `MPI.COMM_WORLD`; making one is collective. Or a process that has come to a running job.

    Such a process is in no window, and reads to and from it are messages, also on its node.

    Parameters
    ----------
    nodes : node number of every rank, from `world`; ranks given different numbers reach each other by `Rget` alone.
    size : bytes of this rank's arena.
    remedy : what the user can do when the arena is full.
    birth : of a process that has come to a running job.
    signs : seconds between two signs of life to other nodes, and the network to give them on; None: it gives none.

    Raises
    ------
    NetworkError
        on all ranks, when the host of one is not in that network.
    """

    def __init__(
        self,
        nodes: list[int],
        size: int,
        remedy: str = "",
        birth: bridge.Birth | None = None,
        signs: tuple[float, str | None] | None = None,
    ) -> None:
        super().__init__()
        self._beats: beats.Beats | None = None
        self.survives = ulfm.ENABLED
        self._status = MPI.Status()
        self._sends: deque[tuple[MPI.Request, Bytes | bytes, int]] = deque()  # with the rank that they go to
        self._reads: deque[tuple[MPI.Request, Bytes, Callable[[], None], int]] = deque()  # with the rank read from
        self._stuck: list[tuple[MPI.Request, Bytes | bytes]] = []  # to and from ranks that are not listened to any more
        self._places: list[int | None]  # of the arenas that this rank has in its memory
        self._window: MPI.Win | None = None
        self._links: dict[int, bridge.Link] = {}  # to ranks that have come, or from this one if it has
        self._comms: deque[tuple[MPI.Intracomm, list[int], int]] = deque()  # with the ranks in each, and a tag to probe
        self._child: bridge.Child | None = None
        self._alarm = threading.Lock()  # released when something that ran aside has ended
        self._alarm.acquire()
        if birth is None:
            self._join_world(nodes, size, remedy)
            if signs is not None and self.survives and len(set(nodes)) > 1:
                self._beats = self._meet_by_signs(*signs)
        else:
            self._come(birth, size, remedy)
        sys.setswitchinterval(SWITCH_SECONDS)
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0)  # ns: short sleeps are to be short

    def _come(self, birth: bridge.Birth, size: int, remedy: str) -> None:
        self.rank, self.parent, self.nodes = birth.rank, birth.parent, birth.nodes
        self.size = len(birth.nodes)
        self.memory = self.arena = np.zeros(size, np.uint8)
        self.space = Allocator(size, remedy)
        self._places = [None] * self.rank + [0]
        self._comm = MPI.COMM_SELF
        for rank, link in birth.links.items():
            self._add_link(rank, link)
        self.lost |= set(range(self.size)) - {self.rank, *birth.links}

    def _add_link(self, rank: int, link: bridge.Link) -> None:
        self._links[rank] = link
        self._comms.append((link.comm, link.ranks, MPI.ANY_TAG))

    def _join_world(self, nodes: list[int], size: int, remedy: str) -> None:
        comm = MPI.COMM_WORLD
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank, self.size, self.nodes = comm.rank, comm.size, nodes
        self._comm = comm
        self._comms.append((comm, list(range(comm.size)), TAG))
        node = MPI.Intracomm(comm.Split(nodes[comm.rank], comm.rank))
        size = max(PAGE, (size + PAGE - 1) // PAGE * PAGE)
        self._shared = MPI.Win.Allocate_shared(size, 1, comm=node)
        mine = [rank for rank in range(comm.size) if nodes[rank] == nodes[comm.rank]]
        spans = [self._shared.Shared_query(i)[0] for i in range(node.size)]
        start = spans[0].address
        self._places = [None] * comm.size
        for rank, span in zip(mine, spans, strict=True):
            self._places[rank] = span.address - start
        total = spans[-1].address + spans[-1].nbytes - start
        self.memory = np.asarray(MPI.memory.fromaddress(start, total)).view(np.uint8)
        own = self._places[comm.rank]
        assert own is not None
        self.arena = self.memory[own : own + size]
        self.space = Allocator(size, remedy)
        node.Free()
        if len(set(nodes)) > 1:
            self._window = MPI.Win.Create(self.arena, 1, comm=comm)
            self._window.Lock_all()
        self._meet()
        comm.Barrier()
        _unlink_mapped_segments()

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

    def _meet_by_signs(self, period: float, interface: str | None) -> beats.Beats:
        """Tell all others where to send signs of life to."""
        comm = self._comm
        own = beats.Beats(self.rank, period, interface)
        packed = np.frombuffer(beats.pack(own.address), np.uint8)
        sizes = np.empty(comm.size, np.int64)
        comm.Allgather(np.array([packed.size], np.int64), sizes)
        everyone = np.empty(int(sizes.sum()), np.uint8)
        comm.Allgatherv([packed, MPI.BYTE], [everyone, sizes.tolist(), MPI.BYTE])
        token = np.frombuffer(os.urandom(8), np.uint64).copy()
        comm.Bcast(token, 0)
        parts = np.split(everyone, np.cumsum(sizes)[:-1])
        own.begin([beats.unpack(part.tobytes()) for part in parts], self.nodes, int(token[0]))
        return own

    def now(self) -> float:
        return time.perf_counter()

    def heard(self, rank: int) -> float | None:
        return self._beats.heard(rank) if self._beats is not None else self.now()

    def give_signs_to(self, ranks: list[int]) -> None:
        if self._beats is not None:
            self._beats.send_to(ranks)

    def place(self, rank: int) -> int | None:
        return self._places[rank] if rank < len(self._places) else None

    # --- more ranks -------------------------------------------------------------------------------------------------

    def bear(self, rank: int) -> None:
        if not self.survives:
            raise NoBirth("new ranks take Open MPI 5 with ULFM, as mpips run starts it")
        nodes = [*self.nodes, *[self.nodes[self.rank]] * (rank + 1 - self.size)]
        try:
            self._child = bridge.Child(rank, nodes, self.rank)
        except MPI.Exception as error:
            raise NoBirth(f"MPI can't start a process: {error.Get_error_string()}") from None

    def child_is_ready(self) -> bool:
        child = self._child
        assert child is not None
        try:
            if not child.is_ready():
                return False
            self._add_link(child.rank, child.adopt())
        except MPI.Exception as error:
            self._learn(error)
            raise NoBirth("the new process has died") from None
        return True

    def introduce(self, rank: int, peer: int) -> None:
        assert self._child is not None
        try:
            self._child.introduce(peer, self._group(peer, peer, self.rank))
        except MPI.Exception as error:
            self._learn(error)
            raise NoBirth(f"rank {rank} and rank {peer} could not be introduced") from None

    def meet(self, rank: int, parent: int) -> None:
        try:
            self._add_link(rank, bridge.meet(rank, self._group(parent, self.rank, parent), parent, self.rank))
        except MPI.Exception as error:
            self._learn(error)

    def _group(self, known: int, *ranks: int) -> MPI.Group:
        """Processes of these ranks, in this order; all are in the communicator by which this one knows another."""
        link = self._links.get(known)
        if link is None:
            return self._comm.group.Incl(list(ranks))
        return link.comm.group.Incl([link.ranks.index(rank) for rank in ranks])

    def release_child(self) -> None:
        assert self._child is not None
        try:
            self._child.begin()
        except MPI.Exception as error:
            self._learn(error)

    def abandon_child(self) -> None:
        assert self._child is not None
        with contextlib.suppress(MPI.Exception):
            self._child.leave()

    # --- messages and reads -----------------------------------------------------------------------------------------

    def _rget(self, rank: int, offset: int, data: Bytes) -> MPI.Request:
        assert self._window is not None
        return self._window.Rget([data, MPI.BYTE], rank, [offset, data.size, MPI.BYTE])

    def _read(self, rank: int, offset: int, out: np.ndarray[Any, Any], then: Callable[[], None]) -> None:
        data = out.view(np.uint8).reshape(-1)
        if rank in self._links:
            self._ask(self._links[rank], rank, offset, data, then)
            return
        # the buffer must live until it is complete
        self._reads.append((self._rget(rank, offset, data), data, then, rank))

    def _arrived(self) -> Callable[[], None] | None:
        for _ in range(min(READS_TESTED, len(self._reads))):
            try:
                request, data, then, rank = self._reads[0]
                if request.Test():
                    self._reads.popleft()
                    return then
                if rank in self.ignored:
                    self._reads.popleft()
                    self._stuck.append((request, data))
                self._reads.rotate(-1)
            except MPI.Exception as error:  # a read from the dead never completes
                self._reads.popleft()
                self._learn(error)
        return None

    def _ask(self, link: bridge.Link, rank: int, offset: int, data: Bytes, then: Callable[[], None]) -> None:
        """Have another rank send what lies in its arena; answers come in the order of the questions."""
        peer = link.ranks.index(rank)
        question = np.array([offset, data.size], np.int64).view(np.uint8)
        try:
            self._reads.append((link.comm.Irecv([data, MPI.BYTE], peer, ANSWER), data, then, rank))
            self._sends.append((link.comm.Isend([question, MPI.BYTE], peer, READ), question, rank))
        except MPI.Exception as error:
            self._learn(error)

    def _answer(self, comm: MPI.Intracomm, peer: int, rank: int, question: bytes) -> None:
        offset, size = np.frombuffer(question, np.int64).tolist()
        data = self.arena[offset : offset + size]
        self._sends.append((comm.Isend([data, MPI.BYTE], peer, ANSWER), data, rank))

    def _post(self, dest: int, data: bytes) -> None:
        comm, peer = self._comm, dest
        if self._links:
            link = self._links.get(dest)
            if link is not None:
                comm, peer = link.comm, link.ranks.index(dest)
            elif comm.size <= dest:  # it never came here
                return
        try:
            request = comm.Isend([data, MPI.BYTE], peer, TAG)
            if not request.Test():
                self._sends.append((request, data, dest))
        except MPI.Exception as error:
            self._learn(error)

    def _poll(self) -> tuple[int, bytes] | None:
        try:
            while self._sends:
                request, sent, dest = self._sends[0]
                if not request.Test():
                    if dest not in self.ignored:
                        break
                    self._stuck.append((request, sent))
                self._sends.popleft()
            for _ in range(len(self._comms)):
                comm, ranks, tag = self._comms[0]
                message = MPI.Message.Iprobe(comm, MPI.ANY_SOURCE, tag, self._status)
                self._comms.rotate(-1)
                if message is None:
                    continue
                source = self._status.Get_source()
                data = bytearray(self._status.Get_count(MPI.BYTE))
                question = self._status.Get_tag() == READ
                message.Recv([data, MPI.BYTE])
                if not question:
                    return ranks[source], bytes(data)
                self._answer(comm, source, ranks[source], bytes(data))
            return None
        except MPI.Exception as error:
            self._learn(error)
            return None

    def _learn(self, error: MPI.Exception) -> None:
        failed = {ranks[rank] for comm, ranks, _ in self._comms for rank in ulfm.failed_ranks(comm)}
        if not failed and not ulfm.is_failure(error):
            raise error
        self._sends = deque(each for each in self._sends if not _broken(each[0]))
        for rank in sorted(failed):
            self._note_lost(rank)

    def _relax(self, idle: float) -> None:
        if idle > YIELD_SECONDS:
            self._alarm.acquire(timeout=min(LONGEST_SLEEP, IDLE_SHARE * idle))
        elif idle > SPIN_SECONDS:
            os.sched_yield()

    def aside(self, work: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            with contextlib.suppress(RuntimeError):  # it is ringing already
                self._alarm.release()

        threading.Thread(target=run, daemon=True).start()
        return future

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Leave together with all others; False when not every rank came in time, one is dead or was taken for dead, or
        one has come to the running job.

        Then MPI can't be finalized: leave by `os._exit`.
        """
        deadline = self.now() + seconds
        everyone = None
        if self._beats is not None:
            self._beats.end()
        try:
            while not self.lost and not self.ignored and not self._links and self.now() < deadline:
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


def _unlink_mapped_segments(name: str = "") -> None:
    """Take the names of our shared-memory segments, those that begin so, out of /dev/shm: everyone on the node has
    mapped them by now.

    The memory lives until the last process lets go of it, and so goes away by itself however the job ends.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(f"{SHARED_MEMORY}/{name}") and not fields[5].endswith("(deleted)"):
            path = Path(fields[5])
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a run's own folder, once it is empty
                path.parent.rmdir()
