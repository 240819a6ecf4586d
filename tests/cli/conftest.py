"""A job file with a little data, and `mpips run` on it in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mpips.cli.cleanup import MARK, SHARED_MEMORY, processes

JOB = """
roles = { servers = 1, data_servers = 1, workers = 1 }

[data]
format = "libsvm"
files = ["train.libsvm"]

[tables.w]
kind = "sparse"
rows = 1000
rule = { name = "ftrl" }

[algorithm]
name = "linear"
table = "w"

[checkpoint]
folder = "run"
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    (tmp_path / "train.libsvm").write_text("1 3:1 7:1\n0 4:1\n")
    return path


class Started:
    """`mpips run` of pretending ranks, and what belongs to it."""

    def __init__(self, job_file: Path, manner: str, *arguments: str) -> None:
        self.folder = job_file.parent / "run"
        program = [sys.executable, str(Path(__file__).with_name("pretend_run.py")), "run", str(job_file), *arguments]
        self.out = (job_file.parent / "out").open("w+")
        self.err = (job_file.parent / "err").open("w+")
        self.process = subprocess.Popen(
            program, stdout=self.out, stderr=self.err, cwd=job_file.parent, env=os.environ | {"MPIPS_PRETEND": manner}
        )
        self.name = ""

    def until(self, holds: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain; so far:\n{self.said()}"
            time.sleep(0.02)

    def until_training(self) -> None:
        """Wait until the ranks are at work, and learn the run's name from mpirun's environment."""
        metrics = self.folder / "metrics.jsonl"
        self.until(lambda: self.process.poll() is not None or (metrics.exists() and "progress" in metrics.read_text()))
        assert self.process.poll() is None, self.said()
        self.name = self.mpirun.environ()[MARK]

    @property
    def mpirun(self) -> psutil.Process:
        return next(p for p in psutil.Process(self.process.pid).children() if MARK in p.environ())

    @property
    def ranks(self) -> list[int]:
        return [rank["pid"] for rank in json.loads((self.folder / "ranks.json").read_text())]

    def end(self, seconds: float = 30.0) -> int:
        return self.process.wait(seconds)

    def said(self) -> str:
        return Path(self.out.name).read_text() + Path(self.err.name).read_text()

    def result(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "result.json").read_text()))

    def nothing_is_left(self) -> bool:
        """True when no process and no file of the run exists."""
        folders = [Path(tempfile.gettempdir()), SHARED_MEMORY]
        files = [path for folder in folders for path in folder.glob(f"*mpips-{self.process.pid}-*")]
        return not files and not (self.name and processes(self.name))


@pytest.fixture
def start(job_file: Path) -> Iterator[Callable[..., Started]]:
    """Start `mpips run` with ranks that behave in the given manner."""
    started: list[Started] = []

    def begin(manner: str, *arguments: str) -> Started:
        started.append(Started(job_file, manner, *arguments))
        return started[-1]

    yield begin
    for job in started:
        job.process.kill()
        job.process.wait()
        job.until(job.nothing_is_left, 15)
        job.out.close()
        job.err.close()
