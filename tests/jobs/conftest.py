"""Small data, a job file on it, and jobs that are ended however their test ends."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mpips.cli.launch import Launcher, find
from tests.jobs.started import QUICK, ULFM, Started, mpips_run, mpirun

ROWS = 5000
TRAIN_ROWS = 4000  # every fifth row is a test row
KEYS = 300
LARGEST_KEY = 20_000

JOB = """
[roles]
servers = 1
data_servers = 1
workers = 1

[data]
format = "libsvm"
files = ["{files}"]
test = {{ every = 5, offset = 4 }}
batch = 100

[tables.w]
kind = "sparse"
rows = 1000
rule = {{ name = "ftrl", alpha = 0.1, l1 = 0.1 }}

[algorithm]
name = "linear"
table = "w"
passes = 2

[checkpoint]
folder = "run"
every = 0

[memory]
server = "64 MB"
data_server = "64 MB"
worker = "16 MB"
"""

FOREVER = "algorithm.passes=1000000"
Start = Callable[..., Started]


@pytest.fixture(scope="session")
def launcher() -> Launcher:
    """The mpirun of this environment."""
    return find()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a logistic model in libsvm format; their binary cache stays for all tests."""
    rng = np.random.default_rng(3)
    keys = np.sort(rng.choice(LARGEST_KEY, KEYS, replace=False))
    weights = rng.normal(size=KEYS)
    path = tmp_path_factory.mktemp("data") / "train.libsvm"
    with path.open("w") as file:
        for _ in range(ROWS):
            chosen = np.sort(rng.choice(KEYS, 12, replace=False))
            values = np.round(rng.normal(size=12), 3)
            label = int(rng.random() < 1 / (1 + np.exp(-(weights[chosen] @ values))))
            file.write(f"{label} " + " ".join(f"{keys[i]}:{v}" for i, v in zip(chosen, values, strict=True)) + "\n")
    return path


@pytest.fixture(scope="session")
def flights_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the flights are kept parsed, so that the checkout stays as it is; as a value to set."""
    return f"data.cache={tmp_path_factory.mktemp('flights')}"


@pytest.fixture
def job_file(tmp_path: Path, data: Path) -> Path:
    """A job on that data whose run folder is `run` beside it."""
    path = tmp_path / "job.toml"
    path.write_text(JOB.format(files=data))
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command whose run folder is `run` in the test's own folder."""
    started: list[Started] = []

    def begin(command: list[str], run: Path | None = None) -> Started:
        started.append(Started(command, tmp_path, run or tmp_path / "run"))
        return started[-1]

    yield begin
    for job in started:
        job.kill()


@pytest.fixture
def run(start: Start, job_file: Path) -> Start:
    """Start `mpips run` on the job file with values set: ``run("roles.workers=2", "--resume")``."""
    return lambda *changes, folder=None: start(mpips_run(job_file, *options(changes)), folder)


@pytest.fixture
def plain(start: Start, job_file: Path, launcher: Launcher) -> Start:
    """Start the job file by a plain mpirun: ``plain("roles.workers=2", ranks=5)``."""

    def begin(*changes: str, ranks: int = 4, ulfm: bool = False, folder: Path | None = None) -> Started:
        program: list[str | Path] = ["-m", "mpips", job_file, *options(changes)]
        return start(mpirun(launcher, ranks, *program, options=ULFM if ulfm else QUICK), folder)

    return begin


@pytest.fixture(params=["mpips run", "mpirun"])
def either(request: pytest.FixtureRequest, run: Start, plain: Start) -> Start:
    """Start the job file by `mpips run`, and by a plain mpirun."""
    return run if request.param == "mpips run" else plain


def mount(*arguments: str | Path) -> str:
    """Why something can't be mounted; empty when it is."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes; the test is skipped where there can be none."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system to fill up")
    path.mkdir()
    if problem := mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", path):
        pytest.skip(f"a small file system can't be mounted here: {problem}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def options(changes: tuple[str, ...]) -> list[str]:
    """Values to set as the command line has them; what begins with -- stays as it is."""
    return [word for change in changes for word in ([change] if change.startswith("--") else ["--set", change])]
