"""What would fail later, found before a job starts: roles, memory, the run folder."""

import contextlib
import fcntl
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import psutil

from mpips.checkpoint.folder import generations, number
from mpips.cli.cleanup import SHARED_MEMORY
from mpips.cli.launch import cores
from mpips.errors import Error
from mpips.job import Job, MemorySection
from mpips.plan import SharedMemoryError, arenas, check_scales
from mpips.record import RunFolderError, unusable
from mpips.views.view import FEWEST_RANKS, View, assign

DEFAULT_RANKS = 8


class ArenaError(Error, MemoryError):
    """The arenas that the job file asks for do not fit this machine."""


def number_of_ranks(job: Job) -> int:
    """The ranks a job takes: what its roles need, or as many as make sense here for the roles left open."""
    others = sum(group.workers for group in job.groups.values())
    total = job.roles.total()
    if total is not None:
        return total + others
    if "SLURM_NTASKS" in os.environ:
        return int(os.environ["SLURM_NTASKS"])
    roles = job.roles
    least = 1 + (roles.servers or 1) + (roles.data_servers or 0) + (roles.workers or 1) + (roles.spares or 0)
    least += others
    return max(least, FEWEST_RANKS, min(cores() + 1, DEFAULT_RANKS))


def check_roles(job: Job, ranks: int) -> View:
    """Give every rank its role.

    Raises
    ------
    RolesError
        when there are more roles than ranks, now or as the job's plan goes.
    """
    groups = {name: group.workers for name, group in job.groups.items()}
    view = assign([0] * ranks, job.roles, groups, job.recovery.replicas, job.team)
    check_scales(job.scales, view)
    return view


def check_memory(job: Job, view: View) -> None:
    """See whether the arenas of all ranks fit this host's shared memory and free memory.

    Raises
    ------
    ArenaError
        naming what is asked for and what is there.
    """
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else psutil.virtual_memory().available
    try:
        chosen = arenas(job.arena_sizes, view, view.nodes, free)
    except SharedMemoryError as error:
        raise ArenaError(f"{job.path}: {error}") from None
    spares = [chosen[rank] for rank in view.spares]
    wanted = sum(chosen) - sum(spares) + max(spares, default=0)  # one that takes a role; the others use nothing
    available = psutil.virtual_memory().available
    if wanted > available and job.memory != MemorySection():
        raise ArenaError(
            f"{job.path}: memory: the arenas take {wanted / 1e6:,.0f} MB, {available / 1e6:,.0f} MB are free: "
            "lower [memory], start fewer ranks or use more nodes"
        )


def newest_in(run: Path) -> int:
    """The number of the newest complete generation in a run folder; 0 if there is none."""
    found = generations(run)
    return number(found[0]) if found else 0


class RunFolder:
    """The run folder, held by one `mpips run` at a time and freed of what an earlier run said about itself.

    Parameters
    ----------
    job : the job that will run.
    goes_on : whether it goes on from a checkpoint that is there: then the log of before is kept.

    Raises
    ------
    RunFolderError
        when it can't be made or written, or another job runs in it.
    """

    def __init__(self, job: Job, goes_on: bool = False) -> None:
        self.path = job.run_folder
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            self._take()
            with tempfile.TemporaryFile(dir=self.path):
                pass
            if goes_on:
                self.begin_again()
            else:
                self._forget()
                for path in self.path.glob("metrics.*.jsonl"):
                    path.unlink()
        except OSError as error:
            if isinstance(error, RunFolderError):
                raise
            raise unusable(self.path, error) from None

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise RunFolderError(
                f"{self.path}: another job runs in this folder: wait for its end, or set checkpoint.folder"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _forget(self) -> None:
        for name in ("result.json", "ranks.json", "metrics.jsonl"):
            self.file(name).unlink(missing_ok=True)

    def begin_again(self) -> None:
        """The job is started again: what it has said so far is kept beside as ``metrics.1.jsonl`` and so on."""
        number = next(i for i in itertools.count(1) if not self.file(f"metrics.{i}.jsonl").exists())
        with contextlib.suppress(FileNotFoundError):
            self.file("metrics.jsonl").rename(self.file(f"metrics.{number}.jsonl"))
        self._forget()

    def newest(self) -> int:
        """As the function."""
        return newest_in(self.path)

    def file(self, name: str) -> Path:
        """A file in the folder."""
        return self.path / name

    def release(self) -> None:
        """Let other runs have the folder."""
        with contextlib.suppress(OSError):
            os.close(self._lock)
