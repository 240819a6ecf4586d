"""The launcher: which mpirun belongs to the MPI in use, and the line that starts a job with it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from mpips.cli.cleanup import MARK, Scratch
from mpips.errors import Error

OPEN_MPI, INTEL_MPI, UNKNOWN = "Open MPI", "Intel MPI", "MPI"
COMPONENTS = {"pml": "ob1", "btl": "self,sm,tcp", "osc": "^ucx"}
SHARED_MEMORY = ("btl_sm_backing_directory", "osc_sm_backing_directory", "osc_rdma_backing_directory")
SEVERAL_HOSTS = {"coll": "^han"}  # no process could be started later with it
HOST_LOSS = {
    "oob_tcp_keepalive_time": "0",
    "state_base_recoverable": "1",
    "state_base_notify_errors": "1",
}
AS_ROOT = [f"{who}_ALLOW_RUN_AS_ROOT{how}" for who in ("OMPI", "PRTE") for how in ("", "_CONFIRM")]
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LauncherError(Error, OSError):
    """There is no mpirun that could start a job."""


class Launcher(NamedTuple):
    """An mpirun: where it is, of which library, and whether a job goes on when a rank dies (ULFM)."""

    path: Path
    library: str
    version: str
    ulfm: bool

    @property
    def places_shared_memory(self) -> bool:
        """Whether it can be told where the ranks' shared memory is to lie."""
        return self.library == OPEN_MPI


def find() -> Launcher:
    """Find the mpirun of the MPI library that mpi4py uses: the environment's own first, then the one on the path.

    Raises
    ------
    LauncherError
        when there is none, or it does not run.
    """
    own = Path(sys.prefix, "bin", "mpirun")
    name = str(own) if own.exists() else shutil.which("mpirun") or shutil.which("mpiexec")
    if name is None:
        raise LauncherError("no mpirun found: install one with pip install 'mpips[mpi]', or load the site's MPI module")
    launcher = _ask(Path(name))
    beside = launcher.path.with_name("mpiexec.hydra")
    if launcher.library in (INTEL_MPI, UNKNOWN) and beside.exists():
        return _ask(beside)  # what Intel's mpirun, a script, starts: it finds it by PATH alone, and passes no signal on
    return launcher


def _ask(path: Path) -> Launcher:
    said = _output(str(path), "--version")
    for library, pattern in (
        (OPEN_MPI, r"Open ?(?:MPI|RTE)\)? v?([\d.]+)"),
        (INTEL_MPI, r"Intel\(R\) MPI.*?Version ([\d.]+)"),
        ("MPICH", r"HYDRA build details.*?Version:\s*([\d.]+)"),
    ):
        match = re.search(pattern, said, re.DOTALL)
        if match:
            return Launcher(path, library, match[1], library == OPEN_MPI and _has_ulfm(str(path), match[1]))
    return Launcher(path, UNKNOWN, "unknown", False)


def _has_ulfm(mpirun: str, version: str) -> bool:
    if int(version.partition(".")[0]) < 5:
        return False
    beside = Path(mpirun).with_name("ompi_info")
    return re.search(r"FT MPI support:\s*yes", _output(str(beside) if beside.exists() else "ompi_info")) is not None


def _output(*command: str) -> str:
    try:
        names = _as_root(os.environ)
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=names)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LauncherError(f"{command[0]} does not run: {error}") from None
    return done.stdout + done.stderr


def several_hosts(hosts: str | None) -> bool:
    """Say whether the ranks of a job that is started here may come to stand on more than one host."""
    if hosts is not None:
        return len({host.partition(":")[0] for host in hosts.split(",")}) > 1
    return int(os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES") or 1) > 1


def cores() -> int:
    """Count the physical cores that this process may use: Open MPI's slots on one host."""
    logical = psutil.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    return max(1, len(os.sched_getaffinity(0)) * physical // logical)


def slots(hosts: str | None) -> int | None:
    """Count the ranks that fit without oversubscription; None when only mpirun knows."""
    if hosts is not None:
        counts = [host.partition(":")[2] for host in hosts.split(",")]
        return sum(int(count) if count.isdigit() else 1 for count in counts)
    if several_hosts(hosts):
        return int(os.environ["SLURM_NTASKS"]) if "SLURM_NTASKS" in os.environ else None
    return int(os.environ.get("SLURM_NTASKS") or cores())


def command(
    launcher: Launcher,
    program: Sequence[str],
    *,
    ranks: int,
    hosts: str | None,
    extra: Sequence[str],
    scratch: Scratch,
    interface: str | None = None,
) -> list[str]:
    """Compose the line that starts `ranks` ranks of `program`.

    Parameters
    ----------
    launcher : the mpirun to use.
    program : what each rank runs.
    hosts : host:slots,… or None for this host, or what the batch system gave.
    extra : further arguments of mpirun; they come last, so that they win.
    scratch : the run's own folders.
    interface : the network that MPI is to use; see `mpips.fabric.spec.NetworkSpec`.
    """
    line = [str(launcher.path), "-n", str(ranks)]
    if launcher.library != OPEN_MPI:
        return [*line, *(["-hosts", hosts] if hosts else []), *extra, *program]
    fitting = slots(hosts)
    oversubscribed = fitting is not None and ranks > fitting
    settings = dict(COMPONENTS)
    runtime = {}
    if oversubscribed:
        settings["mpi_yield_when_idle"] = "1"
    if several_hosts(hosts):
        if interface is not None:
            settings["btl_tcp_if_include"] = interface
        if launcher.ulfm:
            settings |= SEVERAL_HOSTS
            runtime = HOST_LOSS
    else:
        settings |= dict.fromkeys(SHARED_MEMORY, str(scratch.shared_memory))
    if launcher.ulfm:
        line += ["--with-ft", "ulfm"]
    for option, values in (("--mca", settings), ("--prtemca", runtime)):
        for name, value in values.items():
            line += [option, name, value]
    if hosts is not None:
        line += ["--host", hosts]
    # a server's threads want more than the one core that mpirun would bind a rank to
    line += [*(["--map-by", "slot:oversubscribe"] if oversubscribed else []), "--bind-to", "none"]
    for name in (MARK, *THREADS):
        line += ["-x", name]
    return [*line, *extra, *program]


def environment(ranks: int, hosts: str | None, scratch: Scratch) -> dict[str, str]:
    """Make the environment of mpirun: the run's mark, its own temporary folder, and threads that share the cores."""
    names = dict(_as_root(os.environ))
    threads = str(max(1, cores() // ranks)) if not several_hosts(hosts) else "1"
    for name in THREADS:
        names.setdefault(name, threads)
    if "SLURM_JOB_ID" in names:
        names.setdefault("I_MPI_HYDRA_BOOTSTRAP", "slurm")  # as Intel MPI's own script has it
    return names | {MARK: scratch.name, "TMPDIR": str(scratch.temporary)}


def _as_root(names: os._Environ[str]) -> dict[str, str]:
    return dict(names) | (dict.fromkeys(AS_ROOT, "1") if os.geteuid() == 0 else {})


def library() -> str | None:
    """Say which MPI library mpi4py loads, such as ``Open MPI v5.0.11``; None when there is none.

    Asked of another process: loading MPI here would tie this one to it.
    """
    program = "import mpi4py; mpi4py.rc(initialize=False); from mpi4py import MPI; print(MPI.Get_library_version())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    first = done.stdout.partition(",")[0].partition("\n")[0].strip("\0")
    return " ".join(first.split()) or None if done.returncode == 0 else None
