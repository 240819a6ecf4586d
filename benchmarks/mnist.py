"""How many of MNIST's test images a network reads, and how long it takes to train it from the beginning, the mean over
some seeds: as `inputs/mnist.toml` says; by two workers of one thread, asynchronously and synchronously; with three
servers that have one copy of each shard, that have three, and that write them back to the disk all the time besides.

Each seed begins with other weights and other distortions, and goes each of the ways that are asked for.

python benchmarks/mnist.py [--ways file] [--passes 20] [--seeds 3]
python benchmarks/mnist.py --ways asynchronous synchronous
python benchmarks/mnist.py --ways three one --passes 2
python benchmarks/mnist.py --ways written one --passes 2
"""

import argparse
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import report
from jobs import Job

JOB = Path(__file__).parent.parent / "inputs" / "mnist.toml"
ADAM = 0.9963  # Chilimbi et al. 2014, section 5.2
RUN_SECONDS = 2.0 * 3600
TWO = {"roles.workers": 2, "algorithm.neural.threads": 1}
SERVERS = {"roles.servers": 3, "checkpoint.every": 0}
WAYS: dict[str, dict[str, Any]] = {
    "file": {},
    "asynchronous": TWO | {"consistency.delay": "eventual"},
    "synchronous": TWO | {"consistency.delay": 0},
    "one": SERVERS | {"recovery.replicas": 0},
    "three": SERVERS | {"recovery.replicas": 2},
    "written": SERVERS | {"recovery.replicas": 2, "checkpoint.every": 1},
}


def run(settings: dict[str, Any]) -> dict[str, float]:
    """One run's accuracy, minutes and images per second."""
    with Job(settings, JOB) as job:
        result = job.finish(RUN_SECONDS)
    return {
        "accuracy": result["metrics"]["accuracy"],
        "logloss": result["metrics"]["logloss"],
        "minutes": result["seconds"] / 60,
        "images_per_second": result["examples_per_second"],
    }


def main() -> None:
    """Run all ways in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--ways", nargs="+", choices=list(WAYS), default=["file"])
    arguments.add_argument("--passes", type=int, help="epochs, if not as the file says")
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in given.ways}
    passes = {} if given.passes is None else {"algorithm.passes": given.passes}
    for seed in range(1, given.seeds + 1):
        for way, of_way in runs.items():
            of_way.append(run(WAYS[way] | passes | {"data.seed": seed}))
            print(way, of_way[-1], file=sys.stderr)
    means = {way: {name: round(fmean(each[name] for each in of_way), 4) for name in of_way[0]}
             for way, of_way in runs.items()}  # fmt: skip
    first, *others = [means[way]["accuracy"] for way in runs]
    report(
        f"test accuracy on MNIST, {' against '.join(runs)}, mean of {given.seeds} seeds",
        100 * first, "%", 100 * (others or [ADAM])[0], list(runs)[1] if others else "Project Adam's", True,
        accuracies={way: [each["accuracy"] for each in of_way] for way, of_way in runs.items()}, means=means,
    )  # fmt: skip


if __name__ == "__main__":
    main()
