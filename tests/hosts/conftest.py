"""Several hosts on this machine, with a network between them, and jobs over all of them."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs.conftest import JOB, data
from tests.jobs.started import FOLDERS, Started, mpips_run

__all__ = ["data"]

HERE = Path(__file__).parent
HOSTS = 4
SLOTS = 2
PROGRAMS = ("ip", "nsenter", "unshare")


class Hosts:
    """Hosts h1, h2, ...; mpirun runs on h1.

    Parameters
    ----------
    folder : where it keeps what it needs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environment = {"HOSTS_DIR": str(folder), "PRTE_MCA_plm_ssh_agent": str(HERE / "on-host")}
        self.environment |= dict.fromkeys(FOLDERS, "/dev/shm")  # each host has its own

    def up(self) -> None:
        """Make them."""
        command = [HERE / "up.sh", self._folder, str(HOSTS)]
        done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        """End them, and all that runs there."""
        subprocess.run([HERE / "down.sh", self._folder], check=True, timeout=60)

    def on(self, host: str, *command: str) -> list[str]:
        """A command that runs another on a host."""
        return [str(HERE / "on-host"), host, shlex.join(command)]

    def _keeper(self, name: str) -> int:
        return int((self._folder / f"{name}.pid").read_text())

    def pull_the_cable(self, host: str) -> None:
        """From now on nothing comes or goes."""
        switch = ["nsenter", "-t", str(self._keeper("sw")), "-n"]
        subprocess.run([*switch, "ip", "link", "set", f"v{host[1:]}", "down"], check=True, timeout=10)

    def cut_the_power(self, host: str) -> None:
        """All processes there end at once; their sockets close, unless the cable was pulled before."""
        os.kill(self._keeper(host), signal.SIGKILL)

    def of(self, pid: int) -> str:
        """The host that a process is on; empty when it is gone."""
        with contextlib.suppress(OSError):
            net = os.readlink(f"/proc/{pid}/ns/net")
            for number in range(1, HOSTS + 1):
                if os.readlink(f"/proc/{self._keeper(f'h{number}')}/ns/net") == net:
                    return f"h{number}"
        return ""


@contextlib.contextmanager
def up() -> Iterator[Hosts]:
    """Four hosts, for a while."""
    folder = Path(tempfile.mkdtemp(prefix="hosts-"))
    there = Hosts(folder)
    try:
        there.up()
        yield there
    finally:
        there.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Four hosts, which end with the test."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"hosts on this machine take root, and apt install iproute2 util-linux ({missing})")
    with up() as there:
        yield there


@pytest.fixture
def run(hosts: Hosts, tmp_path: Path, data: Path) -> Iterator[Callable[..., Started]]:
    """Starts `mpips run` of the small job on all hosts, or on some, with overrides and options."""
    begun: list[Started] = []

    def start(*words: str, over: int = HOSTS) -> Started:
        (tmp_path / "job.toml").write_text(JOB.format(files=data))
        options = [word for word in words if word.startswith("-")]
        overrides = [part for word in words if not word.startswith("-") for part in ("--set", word)]
        where = ",".join(f"h{number}:{SLOTS}" for number in range(1, over + 1))
        command = mpips_run(tmp_path / "job.toml", "--hosts", where, *overrides, *options)
        job = Started(hosts.on("h1", *command), tmp_path, tmp_path / "run", hosts.environment)
        begun.append(job)
        return job

    try:
        yield start
    finally:
        for job in begun:
            job.kill()
