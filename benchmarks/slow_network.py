"""Epochs of a network with one worker that takes three times as long: over when 75 % of the images are done, against
waiting for all: time, and accuracy.

MNIST's digits, two workers of one thread, as many epochs either way; after each comes an evaluation, which waits for
the epoch. The slow worker sleeps after each batch for twice the time that the batch has taken, so it takes no core from
others. What runs very late is given to another worker anyhow (a workload that takes three times as long as usual).

python benchmarks/slow_network.py [--share 0.75] [--times 3] [--passes 4] [--rounds 3]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import UNDER_MPIRUN, launch, medians, report

from mpips.algorithms.neural import training
from mpips.start import plan_of, run_plan

JOB = Path(__file__).parent.parent / "inputs" / "mnist.toml"
WORKERS = 2
RANKS = 3 + WORKERS


class Slow(training.Training):
    """A worker that takes so many times as long for a batch."""

    times = 1.0

    def train(self, batch: Any) -> float:
        """As the worker does, and then nothing for a while."""
        begin = time.perf_counter()
        loss = super().train(batch)
        time.sleep((self.times - 1.0) * (time.perf_counter() - begin))
        return loss


def live(times: float, sets: list[str]) -> None:
    """A rank of the job; the first of the workers is slow."""
    training.Training = Slow  # type: ignore[misc]
    plan = plan_of(JOB, sets)

    def program(worker: Any) -> None:
        Slow.times = times if worker.index == 0 else 1.0
        plan.program(worker)

    run_plan(replace(plan, program=program))
    if os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0":
        print("{}", flush=True)  # what `launch` looks for


def run(share: float, times: float, passes: int, folder: Path) -> dict[str, float]:
    """One run: seconds of an epoch with its evaluation, images trained on in it, accuracy."""
    values = {
        "roles.workers": WORKERS,
        "algorithm.neural.threads": 1,
        "algorithm.passes": passes,
        "algorithm.epoch_share": share,
        "checkpoint.folder": folder,
        "checkpoint.every": 0,
    }
    sets = [f"{name}={value}" for name, value in values.items()]
    launch([__file__, "--live", "--times", str(times), *(word for each in sets for word in ("--set", each))], RANKS)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    begin = next(event["time"] for event in events if event["event"] == "training")
    last = [event["time"] for event in events if event["event"] == "evaluation"][-1]
    return {
        "seconds": (last - begin) / passes,
        "images": result["examples"] / passes,
        "accuracy": result["metrics"]["accuracy"],
    }


def main() -> None:
    """Measure both in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--share", type=float, default=0.75, help="of an epoch's batches that are waited for")
    arguments.add_argument("--times", type=float, default=3.0, help="how many times as long the slow worker takes")
    arguments.add_argument("--passes", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--live", action="store_true", help=argparse.SUPPRESS)
    arguments.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.live and any(name in os.environ for name in UNDER_MPIRUN):
        live(given.times, given.set)
        return
    runs: dict[float, list[dict[str, float]]] = {1.0: [], given.share: []}
    for number in range(given.rounds):
        for share in sorted(runs, reverse=number % 2 == 0):
            with tempfile.TemporaryDirectory() as folder:
                runs[share].append(run(share, given.times, given.passes, Path(folder, "run")))
            print(share, runs[share][-1], file=sys.stderr)
    table = {f"{share:g}": medians(of_share) for share, of_share in runs.items()}
    whole, part = table["1"], table[f"{given.share:g}"]
    report(
        f"an epoch of which {100 * given.share:g} % are waited for, one of two workers {given.times:g} times slower",
        part["seconds"], "s", whole["seconds"], "all is waited for", False,
        accuracy_less=round(whole["accuracy"] - part["accuracy"], 4), epochs=given.passes, rounds=given.rounds,
        shares=table,
    )  # fmt: skip


if __name__ == "__main__":
    main()
