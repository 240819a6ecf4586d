"""How soon a job goes on when one of its ranks is killed: real jobs, many kills, times from the kill to each stage.

Jobs on the flights data with servers, data servers, workers and spares are started by `mpips run`; a rank of the role
is killed (SIGKILL), and when nothing is missing any more and the job has run undisturbed for a while, another, until
half of the job's spares are used up; then the next job. Stages are read from the jobs' logs: the death is `detected`;
the new `view` is out; the first thing that waited for the rank is `acknowledged`; nothing is missing any more, `whole`.

python benchmarks/recovery.py [--role server|worker|scheduler|data] [--kills 50]
"""

import argparse
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

import numpy as np
from harness import median, report

from mpips.cli.progress import Metrics
from mpips.cli.recoveries import STAGES, Recoveries, Recovery

JOB = Path(__file__).parent.parent / "inputs" / "flights-lr.toml"
ROLES = {"server": "server", "worker": "worker", "scheduler": "scheduler", "data": "data server"}
SPARES = 6
SETTINGS = {
    "roles.servers": 3,
    "roles.data_servers": 2,
    "roles.workers": 2,
    "roles.spares": SPARES,
    "algorithm.passes": 1_000_000,
    "algorithm.evaluate_every": 0,
    "checkpoint.every": 0,
}
BEFORE, AFTER = 2.0, 1.0  # seconds before and after a kill whose examples are counted
QUIET = BEFORE + AFTER
START_SECONDS, WHOLE_SECONDS, END_SECONDS = 60.0, 30.0, 30.0
MOST_FAILURES = 3  # jobs in a row that end when a rank is killed
WANTED = 300.0  # ms


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

    def __init__(self, settings: Mapping[str, Any], job: Path = JOB) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mpips-recovery-"))
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

    def result(self) -> dict[str, Any]:
        """What it came to, once it is over."""
        return dict(json.loads((self.run / "result.json").read_text()))

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


def slowdown(events: list[dict[str, Any]], killed: float) -> float | None:
    """Examples per second just after a kill, as a share of those before; None when the log does not say."""
    counts = [(event["time"], event["examples"]) for event in events if event.get("event") == "progress"]
    if not counts or counts[0][0] > killed - BEFORE or counts[-1][0] < killed + AFTER:
        return None
    times, examples = zip(*counts, strict=True)
    first, middle, last = np.interp([killed - BEFORE, killed, killed + AFTER], times, examples)
    return float((last - middle) / AFTER / ((middle - first) / BEFORE)) if middle > first else None


def spread(times: list[float]) -> dict[str, float]:
    """Median and largest."""
    return {"p50": round(median(times), 1), "max": round(max(times), 1)}


def main() -> None:
    """Kill, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--role", choices=ROLES, default="server")
    arguments.add_argument("--kills", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=1, help="of the choice of ranks")
    given = arguments.parse_args()
    choose = random.Random(given.seed)
    kills: list[Kill] = []
    shares: list[float] = []
    jobs = failures = 0
    while len(kills) < given.kills and failures < MOST_FAILURES:
        jobs += 1
        with Job(SETTINGS | {"data.seed": jobs}) as job:
            if not job.until(job.trains, START_SECONDS):
                sys.exit(f"a job did not begin to train:\n{job.said()}")
            mine: list[Kill] = []
            while len(mine) < SPARES // 2 and len(kills) + len(mine) < given.kills:
                mine.append(job.kill(ROLES[given.role], choose))
                if mine[-1].after("whole") is None:
                    print(f"job {jobs}: rank {mine[-1].rank} was not made up for:\n{job.said()}", file=sys.stderr)
                    break
            failures = failures + 1 if mine[-1].after("whole") is None else 0
            kills += mine
            shares += [share for kill in mine if (share := slowdown(job.events, kill.time)) is not None]
    times = {stage: [after for kill in kills if (after := kill.after(stage)) is not None] for stage in STAGES}
    if not times["acknowledged"]:
        sys.exit(f"none of {len(kills)} kills was recovered from")
    report(
        f"from the kill of a {ROLES[given.role]} until the first thing that waited for it goes on",
        median(times["acknowledged"]),
        "ms",
        WANTED,
        "wanted, in the median",
        False,
        stages={stage: spread(found) for stage, found in times.items() if found},
        kills=len(kills),
        not_whole=len(kills) - len(times["whole"]),
        jobs=jobs,
        speed_after=round(median(shares), 3) if shares else None,
        lowest_speed_after=round(min(shares), 3) if shares else None,
    )


if __name__ == "__main__":
    main()
