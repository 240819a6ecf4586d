"""Random schedules of faults in simulated jobs, as many as wanted: how many jobs went on, and whether any went wrong.

A schedule is drawn by its seed, so that any of them can be run again by itself: `--first SEED --schedules 1`. With
`--ranks`, one job of so many simulated ranks, 5 % of which die at random times while it runs.

python benchmarks/chaos.py [--schedules 1000] [--first SEED] [--ranks 1000]
"""

import argparse
import json
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.recovery.chaos import Course, Violation
from tests.recovery.schedules import Schedule, draw

DYING = 0.05
SECONDS = 0.5  # over which the deaths in a large job are spread


def large(ranks: int, seed: int) -> Schedule:
    """A job of so many ranks in which 5 % die, scheduler and standby spared."""
    rng = random.Random(seed)
    servers, spares = ranks // 6, ranks // 10
    workers = ranks - 1 - servers - spares
    dying = rng.sample(range(1, ranks - 1), int(DYING * ranks))
    return Schedule(
        seed=seed,
        job="program",
        servers=servers,
        data_servers=0,
        workers=workers,
        spares=spares,
        replicas=2,
        place="nodes of their own",
        latency=(1e-4, 1e-3),
        replaces=True,
        saves=False,
        faults=tuple(("kill", rank, rng.uniform(0.0, SECONDS)) for rank in dying),
    )


def main() -> None:
    """Run them, and print the line; exit 1 when something was wrong."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--schedules", type=int, default=1000)
    arguments.add_argument("--first", type=int, default=None, help="seed of the first schedule; a new one by default")
    arguments.add_argument("--ranks", type=int, default=0)
    given = arguments.parse_args()
    first = secrets.randbits(31) if given.first is None else given.first
    seeds = range(first, first + (1 if given.ranks else given.schedules))
    outcomes, messages, began = Counter[str](), 0, time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mpips-chaos-") as folder:
        for seed in seeds:
            course = Course(large(given.ranks, seed) if given.ranks else draw(seed), Path(folder))
            try:
                outcomes[course.run().outcome] += 1
            except Violation as violation:
                outcomes["violation"] += 1
                print(f"python benchmarks/chaos.py --first {seed} --schedules 1\n{violation}\n", file=sys.stderr)
            messages += course.simulation.messages
    seconds = time.perf_counter() - began
    line = {
        "name": "random schedules of faults" + (f", {given.ranks} ranks" if given.ranks else ""),
        "value": outcomes["violation"],
        "unit": "violations",
        "limit": 0,
        "limit_is": "wanted",
        "better": "lower",
        "schedules": len(seeds),
        "first": first,
        "outcomes": dict(outcomes.most_common()),
        "messages": messages,
        "seconds": round(seconds, 1),
    }
    print(json.dumps(line), flush=True)
    sys.exit(bool(outcomes["violation"]))


if __name__ == "__main__":
    main()
