"""A real Slurm of four nodes on this machine, and jobs in its queue."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.started import TOKEN, environment_of, pids

HERE = Path(__file__).parent
SCRIPTS = HERE.parent.parent / "slurm"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
NODES, CPUS = 4, 4


class Cluster:
    """The commands of one Slurm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}

    def say(self, *command: str, **names: str) -> str:
        """What a command says."""
        done = subprocess.run(
            command, env=self.environment | names, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()


class Queued:
    """A job in the queue.

    Attributes
    ----------
    run : its run folder.
    """

    def __init__(self, cluster: Cluster, folder: Path, script: str, job: Path, *overrides: str) -> None:
        self.cluster = cluster
        self.run = folder / "run"
        self.token = f"slurm-{os.getpid()}-{time.monotonic_ns()}"
        self._out = folder / "out"
        words = [word for each in (f"checkpoint.folder={self.run}", *overrides) for word in ("--set", each)]
        options = ("--parsable", "--nodes=2", "--ntasks=5", f"--output={self._out}")
        self.number = cluster.say("sbatch", *options, str(SCRIPTS / script), str(job), *words, **{TOKEN: self.token})

    @property
    def said(self) -> str:
        """What it wrote."""
        return self._out.read_text(errors="replace") if self._out.exists() else ""

    @property
    def state(self) -> str:
        """PENDING, RUNNING, COMPLETED, ..."""
        shown = self.cluster.say("scontrol", "show", "job", self.number)
        return shown.partition("JobState=")[2].split()[0]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind so far."""
        path = self.run / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in found if event["event"] == kind]

    def until(self, holds: Callable[[], object], what: str, seconds: float = 90.0) -> None:
        """Wait for something."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}; {self.state}:\n{self.said}"
            time.sleep(0.1)

    def processes(self) -> list[int]:
        """Those of its processes that live."""
        mark = f"{TOKEN}={self.token}".encode()
        return [pid for pid in pids() if mark in environment_of(pid)]

    def end(self) -> None:
        """Take it out of the queue, and see that nothing of it is left."""
        self.cluster.say("scancel", "--quiet", self.number)
        self.until(lambda: not self.processes(), "the end of its processes", 30.0)


def free_ports(count: int) -> int:
    """The first of so many ports in a row at which nobody listens."""
    while True:
        first = random.randrange(20_000, 30_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("", port))
            return first


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm of its own, which ends with the tests."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(
            f"a Slurm on this machine takes root, and apt install slurmctld slurmd munge slurm-client ({missing})"
        )
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        command = [HERE / "up.sh", folder, str(NODES), str(CPUS), str(free_ports(NODES + 1))]
        up = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
        assert up.returncode == 0, up.stdout + up.stderr
        yield Cluster(folder)
    finally:
        subprocess.run([HERE / "down.sh", folder], check=False, timeout=60, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., Queued]]:
    """Put a job into the queue: the name of its script, the job file, overrides."""
    queued: list[Queued] = []

    def begin(script: str, job: Path, *overrides: str) -> Queued:
        folder = tmp_path / str(len(queued))
        folder.mkdir()
        queued.append(Queued(cluster, folder, script, job, *overrides))
        return queued[-1]

    yield begin
    for each in queued:
        each.end()
