"""The fabric: messages, arenas and one-sided reads, the same for code that runs under MPI or in the simulator.

Every rank writes only its own arena and reads anyone's. A message is handled where it arrives, by the handler that the
rank registered for its type; nothing here blocks without a deadline.
"""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np

from mpips.errors import Error
from mpips.fabric.arena import Allocator
from mpips.messages import Message, decode, encode

BURST = 64  # messages handled in one round before the caller gets its turn
TIMEOUT = 60.0

Handler = Callable[[int, Any], None]
T = TypeVar("T")


class PeerLost(Error, ConnectionError):
    """A rank that something was expected from is dead."""


class Deadline(Error, TimeoutError):
    """What was waited for did not come in time."""


class NoBirth(Error, RuntimeError):
    """A process can't be started to become a rank of this job; the text says why."""


class Fabric(ABC):
    """One rank's way to all others.

    Attributes
    ----------
    rank, size : this rank and how many there are.
    nodes : node number of every rank; ranks of one node can load each other's arenas directly.
    parent : of a process that was started while the job ran: the rank that started it; else None.
    survives : whether the others go on when a rank dies.
    memory : (bytes,) uint8, the arenas of all ranks on this node, one after the other.
    arena : (bytes,) uint8, this rank's own part of `memory`.
    space : hands out stretches of `arena`.
    lost : ranks known to be dead.
    ignored : ranks that are not listened to any more.
    on_lost : called with a rank that has died.
    on_unknown : called with a message that no handler is registered for, and its source.
    cores : of this node, which its ranks share.
    patient : whether what a dead rank was to do is waited for all the same, since another will do it.
    waiting : what this rank waits for now, for whoever asks why it hangs.
    background : pieces of work that `progress` does a step of, each time; a step says whether it did anything.
    """

    rank: int
    size: int
    nodes: list[int]
    parent: int | None = None
    survives: bool
    memory: np.ndarray[Any, np.dtype[np.uint8]]
    arena: np.ndarray[Any, np.dtype[np.uint8]]
    space: Allocator

    def __init__(self) -> None:
        self.lost: set[int] = set()
        self.ignored: set[int] = set()
        self.waiting = ""
        self.on_lost: Callable[[int], None] | None = None
        self.on_unknown: Handler | None = None
        self.patient = False
        self.cores = len(os.sched_getaffinity(0))
        self._busy = 0.0
        self._as: dict[str, np.ndarray[Any, Any]] = {}
        self.background: list[Callable[[], bool]] = []
        self._handlers: dict[type[Message], Handler] = {}
        self._own: deque[Message] = deque()
        self._active_since = 0.0
        self._idle_since: float | None = None

    # --- what MPI and the simulator each do their own way -----------------------------------------------------------

    @abstractmethod
    def heard(self, rank: int) -> float | None:
        """When this rank has last heard of one on another node that it lives, whatever that one is doing; None before
        the first time.
        """

    @abstractmethod
    def give_signs_to(self, ranks: list[int]) -> None:
        """Have these ranks, as far as they are on other nodes, hear that this one lives."""

    @abstractmethod
    def now(self) -> float:
        """Seconds on a clock that only goes forward."""

    @abstractmethod
    def place(self, rank: int) -> int | None:
        """Offset in `memory` of a rank's arena, or None when it is on another node."""

    @abstractmethod
    def _read(self, rank: int, offset: int, out: np.ndarray[Any, Any], then: Callable[[], None]) -> None:
        """Start to copy bytes from another node's arena into `out`, a contiguous array; `then` is for when they are
        there.
        """

    @abstractmethod
    def _arrived(self) -> Callable[[], None] | None:
        """The `then` of a read that is complete, if there is any; never blocks."""

    @abstractmethod
    def _post(self, dest: int, data: bytes) -> None:
        """Send a message; returns at once. To a dead rank it does nothing."""

    @abstractmethod
    def _poll(self) -> tuple[int, bytes] | None:
        """The next message that has arrived, if any. Learns of dead ranks on the way (`_note_lost`)."""

    @abstractmethod
    def _relax(self, idle: float) -> None:
        """Give the core away after `idle` seconds without anything to do, until work that ran aside ends."""

    @abstractmethod
    def aside(self, work: Callable[[], T]) -> "Future[T]":
        """Run something long that sends no message, beside the rank's own loop."""

    # --- more ranks, also each its own way; `mpips.rank.births` has the order of things -------------------------------

    @abstractmethod
    def bear(self, rank: int) -> None:
        """Start a process on this node, this rank's child, which is to become `rank`; takes a second at most.

        Raises
        ------
        NoBirth
            when that is not possible.
        """

    @abstractmethod
    def child_is_ready(self) -> bool:
        """Whether the child has come far enough to be introduced to others.

        Raises
        ------
        NoBirth
            when it has died.
        """

    @abstractmethod
    def introduce(self, rank: int, peer: int) -> None:
        """The parent's part in making the child, which becomes `rank`, and `peer` known to each other; `peer` is at
        `meet`, or about to be.

        Raises
        ------
        NoBirth
            when the child, or the peer, can't be reached.
        """

    @abstractmethod
    def meet(self, rank: int, parent: int) -> None:
        """The peer's part. When it fails the parent sees it, too."""

    @abstractmethod
    def release_child(self) -> None:
        """The child knows everyone: it may begin."""

    @abstractmethod
    def abandon_child(self) -> None:
        """Nothing comes of the child: it is to end."""

    def admit(self, nodes: list[int], absent: set[int]) -> None:
        """There are ranks on these nodes now; those that are `absent` never came."""
        self.size, self.nodes = len(nodes), list(nodes)
        for rank in sorted(absent):
            self._note_lost(rank)

    def busy(self) -> float:
        """Seconds that this rank has been at work, and not waiting with nothing to do."""
        return self._busy + (self.now() - self._active_since if self._idle_since is None else 0.0)

    # --- messages ---------------------------------------------------------------------------------------------------

    def on(self, kind: type[Message], handler: Handler) -> None:
        """Have `handler(source, message)` called for every message of this type."""
        self._handlers[kind] = handler

    def off(self, *kinds: type[Message]) -> None:
        """Handle messages of these types no longer: they are unknown again."""
        for kind in kinds:
            del self._handlers[kind]

    def send(self, dest: int, message: Message) -> None:
        """Send a message to a rank, this one included; returns at once."""
        if dest == self.rank:
            self._own.append(message)
        elif dest not in self.lost:
            self._post(dest, encode(message))

    def dispatch(self, source: int, message: Message) -> None:
        """Have a message handled as if it had just come from `source`."""
        handler = self._handlers.get(type(message), self.on_unknown)
        if handler is None:
            raise Error(f"rank {self.rank}: no handler for {type(message).__name__} from rank {source}")
        handler(source, message)

    def progress(self) -> bool:
        """Handle what has arrived; True when there was anything."""
        busy = False
        for _ in range(BURST):
            if self._own:
                source, message = self.rank, self._own.popleft()
            else:
                item = self._poll()
                if item is None:
                    break
                source, message = item[0], decode(item[1])
            busy = True
            if source not in self.ignored:
                self.dispatch(source, message)
        for _ in range(BURST):
            then = self._arrived()
            if then is None:
                break
            busy = True
            then()
        for work in self.background:
            busy = work() or busy
        return busy

    # --- arenas -----------------------------------------------------------------------------------------------------

    def view(self, rank: int, offset: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Bytes of an arena on this node, not copied."""
        base = self.place(rank)
        if base is None:
            raise Error(f"rank {rank} is on another node than rank {self.rank}: its arena can't be viewed")
        return self.memory[base + offset : base + offset + size]

    def values(self, rank: int, offset: int, count: int, dtype: str) -> np.ndarray[Any, Any]:
        """The same as (count,) values of a dtype; `offset` is a multiple of its size."""
        base = self.place(rank)
        if base is None:
            raise Error(f"rank {rank} is on another node than rank {self.rank}: its arena can't be viewed")
        memory = self._as.get(dtype)
        if memory is None:
            memory = self._as[dtype] = self.memory.view(dtype)
        first = (base + offset) // memory.itemsize
        return memory[first : first + count]

    def fetch(self, rank: int, offset: int, out: np.ndarray[Any, Any], then: Callable[[], None]) -> None:
        """Copy bytes of any arena into `out`, then call `then`; at once on this node, else from `progress`."""
        if self.place(rank) is not None:
            out.view(np.uint8).reshape(-1)[:] = self.view(rank, offset, out.nbytes)
            then()
        else:
            self._read(rank, offset, out, then)

    # --- waiting ----------------------------------------------------------------------------------------------------

    def wait(
        self,
        done: Callable[[], bool],
        what: str | Callable[[], str],
        peers: Callable[[], set[int]] | None = None,
        timeout: float | None = TIMEOUT,
        at_work: Callable[[], bool] | None = None,
    ) -> None:
        """Make progress until `done()`.

        Parameters
        ----------
        what : what is waited for, or a function that says it.
        peers : the ranks that it must come from; when one of them is lost there is no use in waiting, unless this
            rank is `patient`.
        timeout : seconds; None for roles that serve until told to stop.
        at_work : says whether threads of this rank work meanwhile, so that it is not idle.

        Raises
        ------
        Deadline
            when the time is over.
        PeerLost
            when a rank of `peers` is dead.
        """
        if done():
            return

        def text() -> str:
            return what if isinstance(what, str) else what()

        start = since = self.now()
        outer, self.waiting = self.waiting, ""
        try:
            while True:
                busy = self.progress()
                if done():
                    return
                now = self.now()
                if self.lost and not self.patient and peers is not None and (gone := self.lost & peers()):
                    raise PeerLost(f"rank {self.rank} waited for {text()}, but rank {min(gone)} is dead")
                if timeout is not None and now - start > timeout:
                    raise Deadline(f"rank {self.rank} waited {timeout:g} s for {text()}")
                if busy:
                    since = now
                    self._rouse(now)
                    continue
                if at_work is not None and at_work():
                    self._relax(now - since)
                    continue
                if self._idle_since is None:
                    self._idle_since = now
                    self._busy += now - self._active_since
                self.waiting = self.waiting or text()
                self._relax(now - self._idle_since)
        finally:
            self.waiting = outer
            self._rouse(self.now())

    def _rouse(self, now: float) -> None:
        """Something happens again: the time from here on counts as busy."""
        if self._idle_since is not None:
            self._active_since, self._idle_since = now, None

    def _note_lost(self, rank: int) -> None:
        if rank not in self.lost:
            self.lost.add(rank)
            if self.on_lost is not None:
                self.on_lost(rank)
