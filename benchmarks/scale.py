"""A thousand workers and two hundred servers, simulated, against a tenth of them: messages per iteration, and clocks.

In an iteration every worker pulls and pushes the same number of keys, first scattered over a table, then within a
block; so it has to do with a number of servers that does not depend on how many there are. A worker's messages are
counted per iteration and server asked, a server's per request that it gets.

python benchmarks/scale.py [--workers 1000] [--servers 200]
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import report

sys.path.insert(0, str(Path(__file__).parent.parent))
from mpips.plan import MB, Memory
from mpips.views.view import Roles
from tests.simulated import SimulatedJob, program_plan, table

ITERATIONS, KEYS, BLOCKS, ROWS = 10, 16, 10, 1 << 20
ALLOWED = 1.1  # times the messages of the small job


def program(worker: Any) -> tuple[int, int, int]:
    """Messages sent by a worker in its iterations, and how many servers it asked in all."""
    weights, random = worker.table("w"), np.random.default_rng(worker.index)
    fabric, asked = worker._fabric, 0
    before = fabric.sent
    for iteration in range(ITERATIONS):
        lo, size = (iteration % BLOCKS) * (ROWS // BLOCKS), ROWS // BLOCKS
        for within in (None, range(lo, lo + size)):
            span = ROWS if within is None else size
            keys = np.sort(random.choice(span, KEYS, replace=False)) + (0 if within is None else lo)
            pull = weights.pull(keys)
            pull.wait()
            push = weights.push(keys, np.ones(KEYS), within=within)
            push.wait()
            asked += len(pull.asked) + len(push.asked)
    return fabric.sent - before, asked, worker.count


def measure(workers: int, servers: int) -> dict[str, float]:
    """What a job of this size sends, and how large its clocks are."""
    begin = time.perf_counter()
    plan = program_plan(
        program,
        table(rows=ROWS),
        roles=Roles(servers=servers, data_servers=0, workers=workers),
        memory=Memory(server=MB * max(1, 64 // servers) + MB, data_server=MB, worker=MB // 4),
    )
    job = SimulatedJob(plan, list(range(1 + workers + servers)), seed=1).run()
    sent = sum(sent for sent, _, _ in job.results)
    asked = sum(asked for _, asked, _ in job.results)
    held = [job.simulation.ranks[rank] for rank in job.view.servers]
    clocks = [
        shards.clock.ranges(worker) for server in job.servers.values() for shards in server.tables
        for worker in job.view.workers[:: max(1, workers // 50)]
    ]  # fmt: skip
    return {
        "per_worker": sent / workers / ITERATIONS,
        "servers_asked": asked / workers / ITERATIONS,
        "per_server_asked": sent / asked,
        "server_per_request": sum(fabric.sent for fabric in held) / asked,
        "most_clock_ranges": max(clocks),
        "seconds": time.perf_counter() - begin,
    }


def main() -> None:
    """Measure, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workers", type=int, default=1000)
    arguments.add_argument("--servers", type=int, default=200)
    given = arguments.parse_args()
    small, large = measure(given.workers // 10, given.servers // 10), measure(given.workers, given.servers)
    report(
        f"messages of a worker, of {given.workers:,}, per iteration and server asked",
        large["per_server_asked"],
        "messages",
        ALLOWED * small["per_server_asked"],
        f"{ALLOWED} of those with {given.workers // 10:,} workers and {given.servers // 10:,} servers",
        False,
        large={name: round(value, 2) for name, value in large.items()},
        small={name: round(value, 2) for name, value in small.items()},
        blocks=BLOCKS,
    )


if __name__ == "__main__":
    main()
