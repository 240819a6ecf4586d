"""`mpips doctor`: what this machine offers, and what that means for mpips."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpips.cli.cleanup import SHARED_MEMORY
from mpips.cli.launch import LauncherError, cores, find, library

ROOM = 256 << 20
MARKS = {"good": "[green]good[/]", "fair": "[yellow]fair[/]", "bad": "[red]bad[/]"}


class Finding(NamedTuple):
    """One thing looked at: "good", "fair" (jobs run, something is missing) or "bad" (no job can run)."""

    thing: str
    found: str
    verdict: str
    meaning: str


def examine() -> int:
    """Print what this machine offers; 0 when jobs can run here, else 1."""
    findings = [*_python(), *_mpi(), *_machine()]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "found", "verdict", "what it means"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        table.add_row(finding.thing, escape(finding.found), MARKS[finding.verdict], escape(finding.meaning))
    able = all(finding.verdict != "bad" for finding in findings)
    console = Console()
    console.print(table)
    console.print("\nJobs can run here." if able else "\nNo job can run here before what is bad is mended.")
    return 0 if able else 1


def _python() -> Iterator[Finding]:
    yield Finding("Python", platform.python_version(), "good", "")
    for package, needed_for in (
        ("mpi4py", "messages and windows between ranks"),
        ("numba", "kernels, compiled at their first use and cached"),
        ("h5py", "checkpoints and the data cache"),
    ):
        if importlib.util.find_spec(package) is None:
            yield Finding(package, "missing", "bad", f"{needed_for}: pip install {package}")
        else:
            yield Finding(package, importlib.metadata.version(package), "good", needed_for)


def _mpi() -> Iterator[Finding]:
    loaded = library()
    if loaded is None:
        remedy = "pip install 'mpips[mpi]', or load the site's MPI module"
        yield Finding("MPI library", "none", "bad", f"mpi4py finds no MPI: {remedy}")
    else:
        yield Finding("MPI library", loaded, "good", "what the ranks use")
    try:
        launcher = find()
    except LauncherError as error:
        yield Finding("mpirun", "none", "bad", str(error))
        return
    named = f"{launcher.library} {launcher.version}"
    meaning = "what mpips run starts jobs with"
    fits = loaded is None or launcher.library in loaded.replace("(R)", "")
    if not fits:
        meaning = "is of another MPI than the library: every rank would be alone: use the mpirun that belongs to it"
    yield Finding("mpirun", f"{launcher.path} ({named})", "good" if fits else "bad", meaning)
    if launcher.ulfm:
        yield Finding("ULFM", "yes", "good", "ranks that die are replaced: give jobs spares in [roles]")
    else:
        meaning = "no rank is replaced: a dead one ends the job, --resume goes on; pip install 'mpips[mpi]' has ULFM"
        yield Finding("ULFM", "no", "fair", meaning)


def _machine() -> Iterator[Finding]:
    count = cores()
    verdict = "good" if count >= 4 else "fair"
    meaning = "ranks without sharing a core" if count >= 4 else "more ranks than this take turns on the cores"
    yield Finding("cores", str(count), verdict, meaning)
    memory = psutil.virtual_memory()
    yield Finding(
        "memory",
        f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free",
        "good" if memory.available > 4 * ROOM else "fair",
        "tables, data and caches of the ranks on this host",
    )
    yield _shared_memory()
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
        yield Finding("Slurm", f"job {job}, {nodes} nodes", "good", "mpips run uses this allocation")
    elif shutil.which("sbatch"):
        yield Finding("Slurm", "no allocation", "good", "get one by salloc or sbatch to use more nodes than this")
    else:
        yield Finding("Slurm", "no", "good", "jobs run on this host, or on those named by --hosts")


def _shared_memory() -> Finding:
    if not SHARED_MEMORY.is_dir():
        return Finding(str(SHARED_MEMORY), "missing", "bad", "arenas lie there: mount a tmpfs on it")
    free = shutil.disk_usage(SHARED_MEMORY).free
    found = f"{free / 1e9:.1f} GB free"
    if not os.access(SHARED_MEMORY, os.W_OK):
        return Finding(str(SHARED_MEMORY), "not writable", "bad", "arenas lie there: chmod 1777 /dev/shm")
    if free < ROOM:
        remedy = "mount -o remount,size=2G /dev/shm (docker run --shm-size=2g)"
        return Finding(str(SHARED_MEMORY), found, "bad", f"arenas lie there: {remedy}")
    return Finding(str(SHARED_MEMORY), found, "good", "arenas of all ranks on this host fit in it, up to this")
