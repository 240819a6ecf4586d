"""How soon a job goes on when one of its ranks is killed: real jobs, many kills, times from the kill to each stage.

Jobs on the flights data with servers, data servers, workers and spares are started by `mpips run`; a rank of the role
is killed (SIGKILL), and when nothing is missing any more and the job has run undisturbed for a while, another, until
half of the job's spares are used up; then the next job. Stages are read from the jobs' logs: the death is `detected`;
the new `view` is out; the first thing that waited for the rank is `acknowledged`; nothing is missing any more, `whole`.

python benchmarks/recovery.py [--role server|worker|scheduler|data] [--kills 50]
"""

import argparse
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from harness import median, report
from jobs import AFTER, BEFORE, Job, Kill

from mpips.cli.recoveries import STAGES

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
START_SECONDS = 60.0
MOST_FAILURES = 3  # jobs in a row that end when a rank is killed
WANTED = 300.0  # ms


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
        with Job(SETTINGS | {"data.seed": jobs}, JOB) as job:
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
