"""What it costs a network that a server and a worker are killed while it is trained: accuracy with and without, and the
time until each is made up for.

MNIST's digits, two servers with a copy of each shard, two workers, two spares. After a third of the epochs a server is
killed (SIGKILL), after two thirds a worker; undisturbed runs of the same length are between these.

python benchmarks/network_kills.py [--passes 6] [--rounds 3]
"""

import argparse
import random
import sys
from pathlib import Path
from typing import Any

from harness import median, report
from jobs import Job

JOB = Path(__file__).parent.parent / "inputs" / "mnist.toml"
RUN_SECONDS = 900.0
SETTINGS = {
    "roles.servers": 2,
    "roles.workers": 2,
    "roles.spares": 2,
    "algorithm.neural.threads": 1,
    "checkpoint.every": 0,
}


def run(passes: int, roles: list[str], seed: int) -> dict[str, Any]:
    """Accuracy, and of each kill the milliseconds to each stage; a rank of each of these roles is killed in turn."""
    choose, kills = random.Random(seed), {}
    with Job(SETTINGS | {"algorithm.passes": passes, "data.seed": seed}, JOB) as job:
        for number, role in enumerate(roles, 1):
            epoch = passes * number // (len(roles) + 1)
            if not job.until(lambda epoch=epoch: job.epochs >= epoch, RUN_SECONDS):
                sys.exit(f"no epoch {epoch}:\n{job.said()}")
            kill = job.kill(role, choose)
            kills[role] = {stage: kill.after(stage) for stage in ("detected", "acknowledged", "whole")}
        result = job.finish(RUN_SECONDS)
    return {"accuracy": result["metrics"]["accuracy"], "logloss": result["metrics"]["logloss"], "kills": kills}


def main() -> None:
    """Run both in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--passes", type=int, default=6)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"killed": [], "undisturbed": []}
    for seed in range(1, given.rounds + 1):
        for name, roles in (("killed", ["server", "worker"]), ("undisturbed", [])):
            found[name].append(run(given.passes, roles, seed))
            print(name, found[name][-1], file=sys.stderr)
    accuracies = {name: [each["accuracy"] for each in runs] for name, runs in found.items()}
    report(
        f"accuracy after {given.passes} epochs in which a server and a worker were killed",
        median(accuracies["killed"]), "of test images", median(accuracies["undisturbed"]), "undisturbed", True,
        accuracies=accuracies, milliseconds=[each["kills"] for each in found["killed"]],
    )  # fmt: skip


if __name__ == "__main__":
    main()
