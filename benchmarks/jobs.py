"""A job under `mpips run` as benchmarks see it from outside: its log, and its ranks, one of which may be killed."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mpips.cli.progress import Metrics
from mpips.cli.recoveries import Recoveries, Recovery

BEFORE, AFTER = 2.0, 1.0  # seconds before and after a kill whose examples are counted
QUIET = BEFORE + AFTER
WHOLE_SECONDS, END_SECONDS = 30.0, 30.0


class Kill(NamedTuple):
    """A rank that was killed, when, and what came of it; None when the job ended or took no notice."""

    rank: int
    time: float
    recovery: Recovery | None

    def after(self, stage: str) -> float | None:
        """Milliseconds from the kill to a stage."""
        if self.recovery is None or stage not in self.recovery.times:
            return None
        return max(0.0, 1000 * (self.recovery.times[stage] - self.time))


class Job:
    """A job file under `mpips run`, with values set, in a folder of its own. A context manager that ends it.

    Attributes
    ----------
    run : its run folder.
    events : those so far.
    """

    def __init__(self, settings: Mapping[str, Any], job: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mpips-benchmark-"))
        self.run = self.folder / "run"
        self._metrics = Metrics(self.run / "metrics.jsonl")
        self.events: list[dict[str, Any]] = []
        command = [sys.executable, "-c", "from mpips.cli import main; main()", "run", str(job)]
        for name, value in {**settings, "checkpoint.folder": self.run}.items():
            command += ["--set", f"{name}={value}"]
        with (self.folder / "said").open("w") as said:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.send_signal(signal.SIGINT)
            self._process.wait(END_SECONDS)
        self._process.kill()  # what runs under it ends with it
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def said(self) -> str:
        """What `mpips run` has said."""
        return (self.folder / "said").read_text(errors="replace")

    def ranks(self) -> list[dict[str, Any]]:
        """Its ranks that live."""
        return list(json.loads((self.run / "ranks.json").read_text()))

    def result(self, seconds: float) -> dict[str, Any]:
        """What it comes to; nobody disturbs it."""
        self.until(lambda: False, seconds)
        file = self.run / "result.json"
        return dict(json.loads(file.read_text())) if file.exists() else {"exit": "none", "reason": self.said()[-2000:]}

    def finish(self, seconds: float) -> dict[str, Any]:
        """The same of a job that must finish."""
        result = self.result(seconds)
        if result["exit"] != "finished":
            sys.exit(f"the job did not finish: {result['reason']}")
        return result

    @property
    def epochs(self) -> int:
        """Those that are over."""
        return sum(event["event"] == "epoch" for event in self.events)

    def runs(self) -> bool:
        """Whether it is not over."""
        return self._process.poll() is None

    def until(self, holds: Callable[[], object], seconds: float) -> bool:
        """Wait for something while the job runs; whether it came."""
        deadline = time.time() + seconds
        while True:
            self.events += self._metrics.new()
            if holds():
                return True
            if time.time() > deadline or not self.runs():
                return False
            time.sleep(0.01)

    def trains(self) -> bool:
        """Whether workers have been at work for a while."""
        speeds = [event["time"] for event in self.events if event.get("examples_per_second")]
        return bool(speeds) and speeds[-1] - speeds[0] > QUIET

    def kill(self, role: str, choose: random.Random) -> Kill:
        """Kill a rank of a role, and wait until nothing is missing any more and the job has run for a while."""
        ranks = [entry for entry in self.ranks() if entry["role"] == role]
        entry = choose.choice(ranks)
        known = {recovery.number for recovery in Recoveries(self.events).all()}
        killed = time.time()
        os.kill(entry["pid"], signal.SIGKILL)

        def found() -> Recovery | None:
            every = Recoveries(self.events).all()
            return next((r for r in every if r.number not in known and r.rank == entry["rank"]), None)

        whole = self.until(lambda: (recovery := found()) is not None and recovery.is_whole, WHOLE_SECONDS)
        if whole:
            until = time.time() + QUIET
            self.until(lambda: time.time() > until, 2 * QUIET)
        return Kill(entry["rank"], killed, found())
