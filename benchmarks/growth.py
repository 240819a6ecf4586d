"""What it takes to have a fifth server join four while workers push and pull: bytes copied, for how long, how fast
training goes on meanwhile.

Two workers pull and push scattered keys of a dense table (FTRL, 12 bytes a row) all the time; then, as with `mpips
scale`, a server is asked for. Bytes are those of whole copies, and of changes to copies on their way, as the log of the
run has them, of all bytes that the job keeps, copies included: the new server's share is a fifth. The speed is that of
the batches between the request and the end, over that of the seconds before: by the clock, on cores that the ranks
share, and as it is where every rank has a core, batches / CPU seconds of the busiest of all workers and of the servers
from the start. Jobs without and with copies take turns.

python benchmarks/growth.py [--rows 33554432] [--rounds 3] [--share 0.2]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import launch, median, report

import mpips
from mpips.plan import MB, Memory
from mpips.rule import fitted
from mpips.scheduler.requests import Asked, Sizes

SERVERS, WORKERS = 4, 2
ROLES = ("workers", "servers")
KEYS = 4096
DELAY = 4  # pushes that may be unfinished
BEFORE = 4.0  # seconds whose speed counts
FAIR = 1 / (SERVERS + 1)
WANTED_BYTES, WANTED_SPEED = 1.3, 0.8  # times the fair share; of the speed before
RULE = {"name": "ftrl", "alpha": 0.1, "beta": 1.0, "l1": 1.0, "l2": 1.0}


@mpips.function
def cpu_clock(role: Any, argument: Any) -> int:
    """The number of the clock that tells what the rank has used, for other processes of its node."""
    return ~os.getpid() << 3 | 2


def train(worker: Any, run: Path) -> list[list[float]]:
    """Pull and push until the server is there, for which the first worker asks; when each batch was done, in Unix time,
    and, of the first worker's, the CPU seconds of all workers and servers until then.
    """
    clocks = [clock for role in ROLES if worker.index == 0 for clock in worker.call(role, "cpu_clock").wait()]
    table, random = worker.table("w"), np.random.default_rng(worker.index)
    lists = [np.sort(random.choice(table.spec.rows // 64, KEYS, replace=False)) * 64 for _ in range(64)]
    values, done = np.ones(KEYS, np.float32), []
    over, asked = run.with_name("over"), None
    worker.sum(0.0).wait()  # who is late loading kernels
    while not over.exists():
        keys = table.keys(lists[len(done) % len(lists)] + len(done) % 64)
        table.pull(keys).wait()
        table.push(keys, values)
        done.append([time.time(), *map(time.clock_gettime, clocks)])
        if worker.index == 0 and asked is None and done[-1][0] - done[0][0] > BEFORE + 0.5:
            asked = Asked(run, Sizes(servers=SERVERS + 1))
        if asked is not None and (answer := asked.answer()) is not None and answer.is_last:
            asked.close()
            over.touch()
    worker.settle()
    return done


def table_of(rows: int) -> mpips.TableSpec:
    """The table, which knows its rule's slots."""
    return fitted(mpips.TableSpec(name="w", rows=rows, rule=RULE))


def run_one(given: argparse.Namespace) -> None:
    """A rank of one job; the scheduler's prints what came of it."""
    spec, run = table_of(given.rows), Path(given.run)
    data = spec.rows * spec.row_bytes * (1 + spec.slots) * (1 + given.replicas)
    results = mpips.run(
        lambda worker: train(worker, run),
        [spec],
        roles=mpips.Roles(servers=SERVERS, workers=WORKERS, spares=1),
        delay=DELAY,
        run=run,
        replicas=given.replicas,
        copy_share=given.share,
        memory=Memory(server=data // 2 + 128 * MB, worker=64 * MB),
    )
    if not results:
        return
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    begin, end = (next(event for event in events if event["event"] == name) for name in ("scale", "scaled"))
    batches, samples = np.concatenate([np.array(of_one)[:, 0] for of_one in results]), np.array(results[0])

    def speeds(first: float, last: float) -> list[float]:
        """Batches per second, and per CPU second of the busiest rank."""
        used = [np.diff(np.interp([first, last], samples[:, 0], cpu))[0] for cpu in samples[:, 1:].T]
        return [((batches >= first) & (batches < last)).sum() / each for each in (last - first, max(used))]

    before, meanwhile = speeds(begin["time"] - BEFORE, begin["time"]), speeds(begin["time"], end["time"])
    found = {
        "share": end["copied"] / data,
        "megabytes": end["copied"] / 1e6,
        "seconds": end["time"] - begin["time"],
        "speed_with_a_core_each": meanwhile[1] / before[1],
        "speed_on_shared_cores": meanwhile[0] / before[0],
        "batches_per_second": before[0],
    }
    print(json.dumps(found), flush=True)


def main() -> None:
    """Measure in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1 << 25)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--share", type=float, default=0.2, help="of a server's time, for sending copies")
    arguments.add_argument("--run", help=argparse.SUPPRESS)
    arguments.add_argument("--replicas", type=int, default=0, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.run is not None:
        run_one(given)
        return
    runs: dict[int, list[dict[str, float]]] = {0: [], 1: []}
    for _ in range(given.rounds):
        for replicas, found in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                program = [__file__, "--rows", str(given.rows), "--share", str(given.share)]
                program += ["--replicas", str(replicas), "--run", f"{folder}/run"]
                found.append(json.loads(launch(program, 2 + SERVERS + WORKERS)))
                print(replicas, found[-1], file=sys.stderr)
    table = {
        replicas: {name: round(median([run[name] for run in found]), 3) for name in found[0]}
        for replicas, found in runs.items()
    }
    report(
        f"bytes sent when a server joins {SERVERS}, of all bytes with one copy",
        table[1]["share"],
        "of all bytes",
        WANTED_BYTES * FAIR,
        f"{WANTED_BYTES} of the new server's share",
        False,
        without_copies=table[0],
        with_one_copy=table[1],
        speed_wanted=WANTED_SPEED,
        copy_share=given.share,
        rounds=given.rounds,
    )


if __name__ == "__main__":
    main()
