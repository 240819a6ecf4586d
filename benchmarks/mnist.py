"""How many of MNIST's test images a network reads, trained from the beginning as `inputs/mnist.toml` says, or by two
workers of one thread, asynchronously and synchronously: the mean over some seeds, and how long it takes.

Each seed begins with other weights and other distortions, and has its own asynchronous and synchronous run.

python benchmarks/mnist.py [--ways file] [--ways asynchronous --ways synchronous] [--passes 20] [--seeds 3]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from harness import report
from jobs import Job

JOB = Path(__file__).parent.parent / "inputs" / "mnist.toml"
ADAM = 0.9963  # Chilimbi et al. 2014, section 5.2
RUN_SECONDS = 2.0 * 3600
TWO = {"roles.workers": 2, "algorithm.neural.threads": 1}
WAYS: dict[str, dict[str, Any]] = {
    "file": {},
    "asynchronous": TWO | {"consistency.delay": "eventual"},
    "synchronous": TWO | {"consistency.delay": 0},
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
    arguments.add_argument("--ways", action="append", choices=list(WAYS), help="may be given several times")
    arguments.add_argument("--passes", type=int, help="epochs, if not as the file says")
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in given.ways or ["file"]}
    passes = {} if given.passes is None else {"algorithm.passes": given.passes}
    for seed in range(1, given.seeds + 1):
        for way, of_way in runs.items():
            of_way.append(run(WAYS[way] | passes | {"data.seed": seed}))
            print(way, of_way[-1], file=sys.stderr)
    means = {way: {name: round(sum(each[name] for each in of_way) / given.seeds, 4) for name in of_way[0]}
             for way, of_way in runs.items()}  # fmt: skip
    first, *others = [means[way]["accuracy"] for way in runs]
    report(
        f"test accuracy on MNIST, {' against '.join(runs)}, mean of {given.seeds} seeds",
        100 * first, "%", 100 * (others or [ADAM])[0], list(runs)[1] if others else "Project Adam's", True,
        accuracies={way: [each["accuracy"] for each in of_way] for way, of_way in runs.items()}, means=means,
    )  # fmt: skip


if __name__ == "__main__":
    main()
