"""What an idle job of 8 ranks costs: CPU time of all its processes over some seconds in which nobody asks for anything.

python benchmarks/idle.py [--seconds 10]
"""

import argparse
import os
import time

import psutil
from harness import report, start

import mpips

RANKS = 8
arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--seconds", type=float, default=10.0)
given = arguments.parse_args()


def ranks() -> list[psutil.Process]:
    """All ranks of this job, and mpirun: the children of this rank's parent, and itself."""
    launcher = psutil.Process(os.getppid())
    return [launcher, *launcher.children(recursive=True)]


def program(worker):
    """The first worker takes the times; like all others it waits for a push that depends on nothing but time."""
    table = worker.table("w")
    table.push(range(1000), [1.0] * 1000).wait()
    if worker.index:
        return None
    end = time.monotonic() + 2.0
    worker.idle(lambda: time.monotonic() > end)  # lets everyone come to rest
    before = sum(sum(process.cpu_times()[:2]) for process in ranks())
    begin = time.monotonic()
    worker.idle(lambda: time.monotonic() > begin + given.seconds)
    after = sum(sum(process.cpu_times()[:2]) for process in ranks())
    return (after - before) / (time.monotonic() - begin)


if __name__ == "__main__":
    start(RANKS)
    roles = mpips.Roles(servers=2, workers=2, spares=3)
    results = mpips.run(program, [mpips.TableSpec(name="w", rows=1000)], roles=roles)
    if results:
        report("an idle job of 8 ranks", 100 * results[0], "% of one core", 10.0, "% allowed", False)
