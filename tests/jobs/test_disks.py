"""Disks that fill, are read-only or lose the run folder at any moment, while a job trains: it goes on, says so, keeps
the newest generation, and writes the next as soon as it can.
"""

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpips.checkpoint import Generation, generations
from mpips.checkpoint.folder import number
from mpips.checkpoint.layout import FOLDER_NAME
from tests.jobs.conftest import FOREVER, LARGEST_KEY, Start, mount, small_disk
from tests.jobs.started import Started

DISK = 16 << 20
TABLE = f"tables.w={{kind='dense', rows={15 * LARGEST_KEY}, rule={{name='ftrl', alpha=0.1}}}}"  # 3.6 MB with its state
OFTEN = (FOREVER, TABLE, "roles.servers=2", "checkpoint.every=0.1")
TIMES = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MB."""
    with small_disk(tmp_path / "disk", DISK) as path:
        yield path


def newest(run: Path) -> int:
    """The number of the newest generation, which must be whole."""
    with Generation(generations(run)[0]) as generation:
        generation.verify(deep=True)
        return generation.number


def fill(path: Path) -> None:
    """Write a file until no byte more fits."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def epochs(job: Started) -> int:
    """How far the job says that it is."""
    return len(job.events("epoch"))


def goes_on(job: Started) -> None:
    """It writes another generation, and trains."""
    known, done = newest(job.run), epochs(job)
    job.until(lambda: number(generations(job.run)[0]) > known, "another generation")
    job.until(lambda: epochs(job) > done, "another epoch")


def ends_well(job: Started) -> None:
    """It can be interrupted, and its last generation is whole."""
    job.process.send_signal(signal.SIGINT)
    assert job.end() == 130, job.said
    assert job.result()["exit"] == "interrupted"
    assert newest(job.run) == job.events("checkpoint")[-1]["generation"]
    numbers = [event["number"] for event in job.events() if "number" in event]
    assert numbers == sorted(set(numbers))
    by_h5py = 'File "h5py/_objects.pyx"' in job.said  # which says what it could not flush when it lets go of a file
    assert "Traceback" not in job.said or by_h5py


def test_a_disk_that_fills_at_any_moment_costs_what_is_written_then(run: Start, disk: Path, seed: int) -> None:
    choose, filler = random.Random(seed), disk / "filler"
    job: Started = run(*OFTEN, f"checkpoint.folder={disk}/run", folder=disk / "run")
    job.until(lambda: len(job.events("checkpoint")) > 2, "generations")
    for _ in range(TIMES):
        moment = time.monotonic() + choose.uniform(0.0, 0.5)
        job.until(lambda moment=moment: time.monotonic() > moment, "a random moment")
        failures = len(job.events("checkpoint failed"))
        said = job.said.count("was not written")  # once, while the log can't be written either
        fill(filler)
        before = newest(job.run)
        job.until(
            lambda said=said, failures=failures: (
                job.said.count("was not written") > said or len(job.events("checkpoint failed")) > failures
            ),
            "a generation that fails",
        )
        assert newest(job.run) >= before
        fill(filler)  # what the failed one has left is free: nothing but what is complete takes room
        job.until(lambda: not unfinished(job.run), "the end of what is half done")
        filler.unlink()
        goes_on(job)
    assert "No space left on device" in job.said
    ends_well(job)


def unfinished(run: Path) -> list[Path]:
    """What there is of generations after the newest."""
    last = number(generations(run)[0])
    found = [path for path in run.iterdir() if FOLDER_NAME.match(path.name) and number(path) > last]
    return [path for path in found if not path.is_dir() or any(path.iterdir())]


def test_a_disk_that_is_read_only_for_a_while_does_no_harm(run: Start, disk: Path) -> None:
    job: Started = run(*OFTEN, f"checkpoint.folder={disk}/run", folder=disk / "run")
    job.until(lambda: len(job.events("checkpoint")) > 1, "generations")
    job.until(lambda: not mount("-o", "remount,ro", disk), "a moment when no file is written")
    job.until(lambda: "Read-only file system" in job.said, "what it says to that")
    newest(job.run)
    assert not mount("-o", "remount,rw", disk)
    goes_on(job)
    assert "can be written again" in job.said
    ends_well(job)


def test_a_run_folder_that_is_removed_is_made_again(run: Start) -> None:
    job: Started = run(*OFTEN)
    job.until(lambda: len(job.events("checkpoint")) > 1, "generations")
    away = job.run.with_name("away")
    job.run.rename(away)
    shutil.rmtree(away)
    job.until(lambda: generations(job.run), "another generation")
    goes_on(job)
    ends_well(job)
