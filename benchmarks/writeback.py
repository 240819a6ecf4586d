"""What it costs that checkpoints are written all the time: speed of training and of dense pushes with one generation
after the other, as a share of the speed with none.

flights-lr has one worker and one server, as has the job whose worker pushes ranges of 4 MB to a dense table, one after
the other. A core is to spare: with checkpoints and without, all ranks but the scheduler share the first core, and
what they do beside their loops, such as writing, has the second, with the scheduler. Jobs with and without take turns.

python benchmarks/writeback.py [--job dense] [--seconds 8] [--megabytes 256] [--rounds 5] [--rate 0] [--every 0.05]
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

from mpips.fabric.mpi import MpiFabric  # isort: skip - MPI starts here, for one thread
from mpi4py import MPI  # isort: skip
from mpips.plan import MB, Memory, Plan
from mpips.rule import fitted
from mpips.start import plan_of, run_plan

FLIGHTS = Path(__file__).parent.parent / "inputs/flights-lr.toml"
EVERY = 0.05  # seconds from one generation to the next: it begins as soon as the one before is there
PUSHED = 1 << 20  # rows of a push
AHEAD = 4  # pushes that may be unfinished
WANTED = 0.95
PASSES = 40


def program_of(rows: int, seconds: float) -> Any:
    """Pushes range after range; how many a second."""

    def program(worker: Any) -> float:
        table, values = worker.table("w"), np.ones(PUSHED, np.float32)
        pushes, at, made = [], 0, 0

        def push_for(seconds: float) -> float:
            nonlocal at, made
            first, begin = made, time.perf_counter()
            while time.perf_counter() - begin < seconds:
                pushes.append(table.push(range(at, at + PUSHED), values))
                at, made = (at + PUSHED) % rows, made + 1
                if len(pushes) > AHEAD:
                    pushes.pop(0).wait()
            return (made - first) / (time.perf_counter() - begin)

        push_for(1.0)
        speed = push_for(seconds)
        worker.settle()
        return speed

    return program


def spare_a_core() -> None:
    """Keep this rank on the first core, and what it does beside its loop on the second."""
    aside, first, second = MpiFabric.aside, *sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {second if MPI.COMM_WORLD.rank == 0 else first})

    def on_the_second(this: Any, work: Any) -> Any:
        def moved() -> Any:
            os.sched_setaffinity(0, {second})  # of this thread
            return work()

        return aside(this, moved)

    MpiFabric.aside = on_the_second


def run_flights(given: argparse.Namespace) -> None:
    """A rank of a job that trains."""
    settings = {
        "checkpoint.folder": given.run,
        "checkpoint.every": given.every,
        "checkpoint.rate": given.rate,
        "roles.workers": 1,
        "algorithm.passes": PASSES,
        "algorithm.evaluate_every": 0,
        "server.threads": 1,
    }
    run_plan(plan_of(FLIGHTS, [f"{name}={value}" for name, value in settings.items()]))
    if MPI.COMM_WORLD.rank == 0:
        result = json.loads(Path(given.run, "result.json").read_text())
        print(json.dumps({"speed": result["examples_per_second"]}))


def run_one(given: argparse.Namespace) -> None:
    """A rank of a job of dense pushes."""
    rows = given.megabytes * MB // 4 // PUSHED * PUSHED
    outcome = run_plan(
        Plan(
            program=program_of(rows, given.seconds),
            tables=lambda features: [fitted(mpips.TableSpec(name="w", rows=rows))],
            roles=mpips.Roles(servers=1, data_servers=0, workers=1),
            run=Path(given.run),
            saves=True,
            save_every=given.every,
            save_rate=given.rate,
            memory=Memory(server=given.megabytes * MB + 64 * MB, data_server=MB, worker=128 * MB),
            threads=1,
        )
    )
    if outcome.results:
        print(json.dumps({"speed": outcome.results[0]}))


def dense(given: argparse.Namespace, run: Path, every: float) -> float:
    """MB/s pushed."""
    program = [__file__, "--job", "dense", "--run", str(run), "--every", str(every)]
    program += ["--seconds", str(given.seconds), "--megabytes", str(given.megabytes), "--rate", str(given.rate)]
    return float(json.loads(launch(program, 3))["speed"]) * PUSHED * 4 / MB


def flights(given: argparse.Namespace, run: Path, every: float) -> float:
    """Examples a second."""
    program = [__file__, "--job", "flights", "--run", str(run), "--every", str(every), "--rate", str(given.rate)]
    return float(json.loads(launch(program, 4))["speed"])


def main() -> None:
    """Measure in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--job", choices=["flights", "dense"], default="flights")
    arguments.add_argument("--seconds", type=float, default=8.0, help="that a job of dense pushes lasts")
    arguments.add_argument("--megabytes", type=int, default=256, help="of the dense table")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--rate", type=float, default=0.0, help="megabytes a second that may be written; 0: any")
    arguments.add_argument("--every", type=float, default=EVERY, help="seconds from one generation to the next")
    arguments.add_argument("--run", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.run is not None:
        spare_a_core()
        (run_flights if given.job == "flights" else run_one)(given)
        return
    one = {"flights": flights, "dense": dense}[given.job]
    without, with_ = list[float](), list[float]()
    generations, seconds = list[int](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        one(given, Path(folder, "warm"), 0.0)
        for _ in range(given.rounds):
            without.append(one(given, Path(folder, "none"), 0.0))
            run = Path(folder, "all the time")
            with_.append(one(given, run, given.every))
            events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            found = [event["seconds"] for event in events if event["event"] == "checkpoint"]
            generations.append(len(found))
            seconds.append(median(found))
            print(round(without[-1], 1), round(with_[-1], 1), found[:3], file=sys.stderr)
    shares = [b / a for a, b in zip(without, with_, strict=True)]
    report(
        f"{given.job}: speed while one checkpoint follows the other",
        median(shares),
        "of the speed with none",
        WANTED,
        "wanted",
        True,
        all=[round(share, 3) for share in shares],
        unit_of_speed={"flights": "examples/s", "dense": "MB/s pushed"}[given.job],
        without=round(median(without), 1),
        every=given.every,
        rate=given.rate,
        generations=median(generations),
        seconds_a_generation=round(median(seconds), 3),
    )


if __name__ == "__main__":
    main()
