"""What it takes to have a fifth server join four while workers push and pull: bytes copied, for how long, how fast
training goes on meanwhile, beside before and after.

Two workers pull and push scattered keys of a dense table (FTRL, 12 bytes a row) all the time; then, as with `mpips
scale`, a server is asked for. Bytes are those of whole copies, and of changes to copies on their way, as the log of the
run has them, of all bytes that the job keeps, copies included: the new server's share is a fifth. The speed is that of
the batches between the request and the end, by the clock. Where ranks share cores, a fifth server takes its part of
them with copies on their way or without, and the seconds after tell what that comes to: the speed kept is that of
meanwhile over that of after. Over that of before it is told, too. Jobs without and with copies take turns.

python benchmarks/growth.py [--rows 33554432] [--rounds 3] [--share 0.1]
"""

import argparse
import json
import math
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
KEYS = 4096
DELAY = 4  # pushes that may be unfinished
BEFORE, AFTER = 4.0, 3.0  # seconds whose speed is compared
FAIR = 1 / (SERVERS + 1)
WANTED_BYTES, WANTED_SPEED = 1.3, 0.8  # times the fair share; of the speed before
RULE = {"name": "ftrl", "alpha": 0.1, "beta": 1.0, "l1": 1.0, "l2": 1.0}


def train(worker: Any, run: Path) -> list[float]:
    """Pull and push until the server, for which the first worker asks, has been there for a while; when each batch was
    done, in Unix time.
    """
    table, random = worker.table("w"), np.random.default_rng(worker.index)
    lists = [np.sort(random.choice(table.spec.rows // 64, KEYS, replace=False)) * 64 for _ in range(64)]
    values, done = np.ones(KEYS, np.float32), []
    over, asked, end = run.with_name("over"), None, math.inf
    worker.sum(0.0).wait()  # who is late loading kernels
    while not over.exists():
        keys = table.keys(lists[len(done) % len(lists)] + len(done) % 64)
        table.pull(keys).wait()
        table.push(keys, values)
        done.append(time.time())
        if worker.index == 0 and asked is None and done[-1] - done[0] > BEFORE + 0.5:
            asked = Asked(run, Sizes(servers=SERVERS + 1))
        if asked is not None and end == math.inf and (answer := asked.answer()) is not None and answer.is_last:
            asked.close()
            end = done[-1] + AFTER
        if done[-1] > end:
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
    batches = np.concatenate(results)
    times = [begin["time"] - BEFORE, begin["time"], end["time"], end["time"] + AFTER]
    before, meanwhile, after = (np.histogram(batches, bins=times)[0] / np.diff(times)).tolist()
    found = {
        "share": end["copied"] / data,
        "megabytes": end["copied"] / 1e6,
        "seconds": end["time"] - begin["time"],
        "speed_over_after": meanwhile / after,
        "speed_over_before": meanwhile / before,
        "batches_per_second_before": before,
    }
    print(json.dumps(found), flush=True)


def main() -> None:
    """Measure in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1 << 25)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--share", type=float, default=0.1, help="of a server's time, for sending copies")
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
