"""Programs under mpirun: with a deadline, every rank's stack when it passes, and what they left behind."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from mpips.cli import launch
from mpips.cli.cleanup import Scratch, processes

ROOT = Path(__file__).parents[1]


class Ended(NamedTuple):
    """How mpirun ended, and when by `time.monotonic`; the processes that outlived it, and its files in /dev/shm."""

    code: int
    output: str
    time: float
    processes: list[int]
    files: list[str]


def mpirun(program: Sequence[str], ranks: int, deadline: float) -> Ended:
    """Run a program on so many ranks; a hang fails the test with what every rank was doing."""
    scratch = Scratch()
    stays = scratch.shared_memory / "stays"
    stays.touch()  # a folder that a fabric finds empty it removes, and the next one in the same process has none
    line = launch.command(launch.find(), program, ranks=ranks, hosts=None, extra=[], scratch=scratch)
    names = launch.environment(ranks, None, scratch) | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(line, stdout=out, stderr=subprocess.STDOUT, env=names, cwd=ROOT)
        try:
            code = process.wait(deadline)
        except subprocess.TimeoutExpired:
            for pid in processes(scratch.name):
                if psutil.Process(pid).name().startswith("python"):
                    os.kill(pid, signal.SIGUSR2)
            time.sleep(2.0)
            out.seek(0)
            pytest.fail(f"not over after {deadline:g} s:\n{out.read()}")
        finally:
            over = time.monotonic()
            process.kill()
            process.wait()
            left = scratch.end(patience=5.0)
            files = [path.name for path in scratch.shared_memory.iterdir() if path != stays]
            scratch.clear()
        out.seek(0)
        return Ended(code, out.read(), over, left, files)
