"""No process and no file of a job outlives `mpips run`, however it ends.

Every process of a job carries the run's mark in its environment, and every temporary file lies in a folder of
that name. A *keeper*, forked before the job starts, clears both when `mpips run` itself is killed; what is left
when even the keeper is killed is found by the next `mpips run`, by the lock that nobody holds any more.
"""

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import tempfile
import time
from pathlib import Path

MARK = "MPIPS_RUN"
PREFIX = "mpips-"
LOCK = "lock"
SHARED_MEMORY = Path("/dev/shm")
OF_MPICH = "mpich_shm_*"
GIVEN_UP = 10.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Scratch:
    """The folders of one run for temporary files and shared memory, locked as long as the run (or its keeper) lives.

    Parameters
    ----------
    name : of the run; by default a new one, whose folders are made.
    shared_memory : whether the run's MPI can be told to use the folder for shared memory.
    """

    def __init__(self, name: str | None = None, shared_memory: bool = True) -> None:
        self.name = name or f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self.temporary = Path(tempfile.gettempdir(), self.name)
        self.shared_memory = SHARED_MEMORY / self.name
        self._mapped: set[str] = set()
        self._lock: int | None = None
        if name is None:
            self._make(shared_memory)

    def _make(self, shared_memory: bool) -> None:
        # under a name that nobody looks for until the lock is held
        hidden = self.temporary.with_name(f".{self.name}")
        hidden.mkdir(mode=0o700)
        self._lock = os.open(hidden / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        hidden.rename(self.temporary)
        if shared_memory:
            with contextlib.suppress(OSError):  # mpirun says it better when shared memory can't be had
                self.shared_memory.mkdir(mode=0o700)

    def note_shared_memory(self) -> None:
        """Learn which files in /dev/shm the run's processes use: not every MPI can be told where to put them."""
        for pid in processes(self.name):
            self._mapped |= shared_memory_of(pid)

    def end(self, patience: float = 0.0) -> list[int]:
        """Wait until the processes of the run are gone, kill those that stay longer than `patience` seconds.

        Returns
        -------
        list of int
            Process ids that had to be killed.
        """
        killed: set[int] = set()
        deadline = time.monotonic() + patience
        pause = 0.005
        while (left := processes(self.name)) and time.monotonic() < deadline + GIVEN_UP:
            self.note_shared_memory()
            if time.monotonic() >= deadline:
                killed |= {pid for pid in left if _kill(pid, self.name)}
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
        return sorted(killed)

    def clear(self) -> None:
        """End the processes of the run and remove its folders."""
        self.end()
        if files := self._mapped | self._of_mpich():
            used = set().union(*(shared_memory_of(pid) for pid in _pids()))
            for path in files - used:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        shutil.rmtree(self.shared_memory, ignore_errors=True)
        shutil.rmtree(self.temporary, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _of_mpich(self) -> set[str]:
        """Files of MPICH that this user's processes have made since the run began: ranks that die while they start
        leave one, and it does not say whose it is.
        """
        found = set()
        with contextlib.suppress(OSError):
            began = (self.temporary / LOCK).stat().st_mtime
            for path in SHARED_MEMORY.glob(OF_MPICH):
                made = path.stat()
                if made.st_uid == os.geteuid() and made.st_mtime >= began:
                    found.add(str(path))
        return found


def processes(name: str) -> list[int]:
    """Find the processes on this host that carry the mark of run `name`; zombies carry none."""
    mark = f"{MARK}={name}".encode()
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def shared_memory_of(pid: int) -> set[str]:
    """The files in /dev/shm, not unlinked yet, that a process has mapped; none when it is gone or another user's."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return set()
    paths = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if f" {SHARED_MEMORY}/" in line}
    return {path for path in paths if not path.endswith(" (deleted)")}


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _kill(pid: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            # the handle was taken first: if the mark is there now, it is the process that will get the signal
            if f"{MARK}={name}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return True
        finally:
            os.close(handle)
    return False


def sweep() -> list[str]:
    """Clear what runs of this user left whose `mpips run` and keeper are both gone; their names."""
    cleared = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Scratch(folder.name).clear()
                cleared.append(folder.name)
            finally:
                os.close(lock)
    return cleared


class Keeper:
    """A process that clears a run when this one dies without having done so. Make it before any thread is started."""

    def __init__(self, scratch: Scratch) -> None:
        listening, self._line = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._line)
            _keep(scratch, listening)
        os.close(listening)

    def dismiss(self) -> None:
        """Let the keeper go: the run has been cleared."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._line, b".")
        os.close(self._line)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _keep(scratch: Scratch, listening: int) -> None:
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        if not os.read(listening, 1):
            scratch.clear()
    finally:
        os._exit(0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies; for the child between fork and exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
