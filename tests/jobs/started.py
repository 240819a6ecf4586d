"""A job in processes of its own: started, watched, and ended however its test ends."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from mpips.cli.app import app
from mpips.cli.cleanup import MARK, SHARED_MEMORY, shared_memory_of
from mpips.cli.launch import AS_ROOT, COMPONENTS, OPEN_MPI, Launcher
from mpips.cli.launch import SHARED_MEMORY as BACKING
from mpips.errors import Error

TOKEN = "MPIPS_TEST_JOB"
DEADLINE = 60.0
SOON = 40.0  # … of what ends as soon as ranks have started, on a busy machine; a rank that hangs gives up after 60
QUICK = [word for name, value in COMPONENTS.items() for word in ("--mca", name, value)]  # saves a second a job
ULFM = [*QUICK, "--with-ft", "ulfm"]
RANK = b"OMPI_COMM_WORLD_RANK=", b"PMI_RANK="  # of Open MPI, and of MPICH and what descends from it
RUN = f"{MARK}=".encode()
FOLDERS = [f"OMPI_MCA_{name}" for name in BACKING]  # where Open MPI puts its files, unless `mpips run` says so
OTHERS = "sm_segment.", "mpips-"  # so begin the names of other jobs' files


@functools.cache
def parsed(line: str) -> dict[str, Any]:
    """An event; who waits for one reads all before it many times."""
    return dict(json.loads(line))


def pids() -> list[int]:
    """Every process of this host."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment_of(pid: int) -> list[bytes]:
    """The environment that a process was started with; empty for a zombie, and when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def command_of(pid: int) -> str:
    """The command line of a process; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def parent_of(pid: int) -> int:
    """The process id of a process's parent; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def mpips_run(*arguments: str | Path) -> list[str]:
    """The command ``mpips run``."""
    command = shutil.which("mpips", path=str(Path(sys.executable).parent))
    assert command is not None, "mpips is not installed in the environment that runs these tests"
    return [command, "run", *map(str, arguments)]


def asked(job: "Started", command: str, *arguments: str, code: int = 0) -> str:
    """What a command of `mpips` says of a job, with which exit code; run in this process, as another would first have
    to start.
    """
    done = CliRunner().invoke(app, [command, str(job.run), *arguments])
    said = done.output + (str(done.exception) if isinstance(done.exception, Error) else "")
    assert done.exit_code == code, said
    return said


def mpirun(launcher: Launcher, ranks: int, *program: str | Path, options: Sequence[str] = ()) -> list[str]:
    """A plain mpirun of a Python program, as a site would write it; the options are Open MPI's."""
    own = ["--oversubscribe", *options] if launcher.library == OPEN_MPI else []
    return [str(launcher.path), "-n", str(ranks), *own, sys.executable, *map(str, program)]


class Started:
    """A job that runs, and all that belongs to it.

    Parameters
    ----------
    command : what to run.
    home : the current folder of the job, which takes its output and temporary files.
    run : its run folder.
    environment : names that it has besides this process's.
    """

    def __init__(
        self, command: Sequence[str], home: Path, run: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.token = f"{home.name}-{time.monotonic_ns()}"
        self.run = run
        self._out = home / f"{self.token}.out"
        self._err = home / f"{self.token}.err"
        self._shared_before = set(SHARED_MEMORY.iterdir())
        self._shared = SHARED_MEMORY / f"mpips-test-{self.token}"
        self._shared.mkdir()
        temporary = home / "tmp"
        temporary.mkdir(exist_ok=True)
        names = {TOKEN: self.token, "TMPDIR": str(temporary), "COLUMNS": "200"}
        names |= dict.fromkeys(FOLDERS, str(self._shared))  # so a file tells whose it is
        if os.geteuid() == 0:
            names |= dict.fromkeys(AS_ROOT, "1")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=home,
                env=os.environ | names | dict(environment or {}),
            )

    # --- what it says -----------------------------------------------------------------------------------------------

    @property
    def output(self) -> str:
        """What it wrote to its output."""
        return self._out.read_text(errors="replace")

    @property
    def errors(self) -> str:
        """What it wrote to its error output."""
        return self._err.read_text(errors="replace").replace("\0", "")  # so Open MPI ends its messages

    @property
    def said(self) -> str:
        """What it wrote, for a test's failure."""
        return f"{self.output}\n--- stderr\n{self.errors}"

    @property
    def complaint(self) -> str:
        """What mpips itself says on the error output: a line, and those that go on from it.

        Checks that it says so once, and that nothing shows a traceback.
        """
        assert "Traceback" not in self.said, self.said
        found = re.findall(r"^mpips: ?.*(?:\n(?!---|\[).+)*", self.errors, re.MULTILINE)
        assert len(found) == 1, self.said
        return str(found[0])

    def result(self) -> dict[str, Any]:
        """How the job ended, from result.json."""
        return dict(json.loads((self.run / "result.json").read_text()))

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The events so far, or those of one kind."""
        try:
            text = (self.run / "metrics.jsonl").read_text()
        except (FileNotFoundError, NotADirectoryError):
            return []
        events = [parsed(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [event for event in events if kind in (None, event["event"])]

    def notes(self) -> str:
        """The texts of the notes, a line each."""
        return "\n".join(event["text"] for event in self.events("note"))

    def ranks(self) -> list[dict[str, Any]]:
        """Rank, role, host and pid of every rank."""
        return list(json.loads((self.run / "ranks.json").read_text()))

    def pid_of(self, role: str) -> int:
        """The last rank with a role."""
        return int([rank["pid"] for rank in self.ranks() if rank["role"] == role][-1])

    def mpirun_pid(self) -> int:
        """The launcher that `mpips run` started: its own child that carries the run's mark."""
        children = [pid for pid in self.processes() if parent_of(pid) == self.process.pid]
        return next(pid for pid in children if any(entry.startswith(RUN) for entry in environment_of(pid)))

    # --- its course -------------------------------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Its processes that live."""
        mark = f"{TOKEN}={self.token}".encode()
        return [pid for pid in pids() if mark in environment_of(pid)]

    def until(self, holds: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
        """Wait for something while the job runs; when it does not come, fail with every rank's state."""
        deadline = time.monotonic() + seconds
        while not holds():
            if self.process.poll() is not None and not holds():
                raise AssertionError(f"the job ended ({self.process.returncode}) before {what}:\n{self.said}")
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s for {what}:\n{self.state()}")
            time.sleep(0.02)

    def until_training(self, epochs: int = 1) -> None:
        """Wait until some epochs are done."""
        self.until(lambda: len(self.events("epoch")) >= epochs, f"epoch {epochs}")

    def end(self, seconds: float = DEADLINE) -> int:
        """The exit code, when the job has ended and left nothing; a hang fails with every rank's state."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not over after {seconds:.0f} s:\n{self.state()}") from None
        self.nothing_is_left()
        return code

    def state(self) -> str:
        """What the job has said, with the stacks of its ranks (they write them on SIGUSR2)."""
        for pid in self.processes():
            if any(entry.startswith(RANK) for entry in environment_of(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR2)
        time.sleep(1.0)
        return f"{self.events()[-5:]}\n{self.said}"

    def nothing_is_left(self, seconds: float = 10.0) -> None:
        """Within seconds no process of the job lives, and no file that it made in /dev/shm is there."""
        deadline = time.monotonic() + seconds
        while (processes := self.processes()) or self._shared_files():
            if time.monotonic() > deadline:
                named = {pid: command_of(pid) for pid in processes}
                files, state = self._shared_files(), self.state()
                raise AssertionError(f"the job left processes {named}, files {files}:\n{state}")
            time.sleep(0.02)

    def _shared_files(self) -> set[str]:
        """Files in /dev/shm that are its own, or new and neither another job's nor in use by any process."""
        own = {str(path) for path in [*self._shared.glob("*"), *SHARED_MEMORY.glob(f"mpips-{self.process.pid}-*")]}
        others = self._shared_before | {self._shared}
        new = {str(path) for path in set(SHARED_MEMORY.iterdir()) - others if not path.name.startswith(OTHERS)}
        if new:
            used = set().union(*(shared_memory_of(pid) for pid in pids()))
            new = {path for path in new if not any(file.startswith(path) for file in used)}
        return own | new

    def kill(self) -> None:
        """End whatever of it lives, by process id."""
        for _ in range(100):
            left = self.processes()
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self.process.wait(10)
        shutil.rmtree(self._shared, ignore_errors=True)  # a rank has removed it, if one came to have an arena
