"""What a copy of every shard costs: examples per second with one, as a share of those with none, pushes aggregated.

Every worker keeps its part of the flights data of inputs/flights-lr.toml, and in step with the others pulls a batch's
weights and pushes its gradient, which the servers sum over the workers. With `--data zipf` the data are those of
throughput.py. On a cluster every server has cores of its own, while here all ranks share two; so the figure is the
speed that CPU times come to where every rank has a core: examples / CPU seconds of the busiest rank, of all workers and
servers, but for those in which it looked for messages and there were none. The line also has the speed with all CPU
seconds counted, and the one by the clock, on shared cores. Jobs without and with copies take turns.

python benchmarks/replication.py [--data flights] [--workers 4] [--servers 2] [--batch 1024] [--rounds 5]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from harness import launch, median, report
from throughput import BITS, JOB, NONZEROS
from zipf import write

import mpips
from mpips.algorithms.linear import LogisticRegression
from mpips.dataserver.batch import Batch, batch_of
from mpips.dataserver.rows import Rows
from mpips.dataserver.source import prepare
from mpips.job import load
from mpips.start import plan_of, run_plan

FLIGHTS = Path(__file__).parent.parent / "inputs/flights-lr.toml"
EXAMPLES = 200_000  # of the Zipf data
BATCH = {"flights": 1024, "zipf": 10_000}
PASSES = {"flights": 20, "zipf": 4}
DELAY = 4  # batches that may be unfinished when the weights of the next are pulled
ROLES = ("workers", "servers")
SHARE = 0.85  # wanted, of the speed without copies


class Looking:
    """Adds up the CPU seconds in which a rank, waiting for messages, finds none.

    Attributes
    ----------
    seconds : so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, fabric: type) -> None:
        """Count in all fabrics of a class."""
        progress, relax = fabric.progress, fabric._relax

        def timed_progress(this: Any) -> bool:
            begin = time.thread_time()
            found = bool(progress(this))
            if not found:
                self.seconds += time.thread_time() - begin
            return found

        def timed_relax(this: Any, idle: float) -> None:
            begin = time.thread_time()
            relax(this, idle)
            self.seconds += time.thread_time() - begin

        fabric.progress, fabric._relax = timed_progress, timed_relax


LOOKING = Looking()


@mpips.function
def cpu_seconds(role: Any, argument: Any) -> list[float]:
    """What the rank has used so far: at work, and in all."""
    used = time.process_time()
    return [used - LOOKING.seconds, used]


def batches_of(rows: Batch, count: int) -> Iterator[Batch]:
    """The rows of a worker, cut into so many batches."""
    keys, cuts = rows.keys[rows.indices], np.linspace(0, len(rows), count + 1).astype(np.int64)
    for a, b in pairwise(cuts.tolist()):
        first, last = rows.indptr[a], rows.indptr[b]
        values = rows.values[first:last] if rows.values.size else rows.values
        yield batch_of(
            Rows(rows.labels[a:b], np.arange(b - a), (rows.indptr[a : b + 1] - first).astype(np.int64),
                 keys[first:last], values)
        )  # fmt: skip


def train(worker: Any, table: str, passes: int, batch: int) -> dict[str, Any]:
    """The program of a worker: examples in all, seconds, and CPU seconds, at work and in all, of every worker and
    server.
    """
    rows = worker.rows()
    (total,) = worker.sum(len(rows)).wait()
    batches = list(batches_of(rows, round(total / worker.count / batch)))
    algorithm = LogisticRegression(worker.table(table))

    def all_of(times: int) -> float:
        """The loss over the rows of all, when everything is applied."""
        loss = 0.0
        for _ in range(times):
            loss = sum(algorithm.train(each) for each in batches)
        worker.settle()
        return float(worker.sum(loss).wait()[0])

    def used() -> dict[str, Any]:
        """CPU seconds of all workers and of all servers so far; the first worker asks."""
        found = {role: np.array(worker.call(role, "cpu_seconds").wait()) for role in ROLES if worker.index == 0}
        worker.sum(0.0).wait()
        return found

    all_of(1)  # loads the kernels, and makes all rows
    before, begin = used(), time.monotonic()
    loss = all_of(passes)
    seconds, after = time.monotonic() - begin, used()
    cpu = {role: (after[role] - before[role]).T.tolist() for role in after}
    return {"examples": passes * total, "seconds": seconds, "loss": loss / total, "cpu": cpu}


def run_one(given: argparse.Namespace) -> None:
    """A rank of one job; the scheduler's prints what the first worker measured."""
    from mpips.fabric.mpi import MpiFabric  # starts MPI

    LOOKING.watch(MpiFabric)
    plan = plan_of(given.job, given.set)
    batch = given.batch or BATCH[given.data]

    def program(worker: Any) -> dict[str, Any]:
        return train(worker, plan.model, PASSES[given.data], batch)

    outcome = run_plan(replace(plan, program=program, keeps_rows=True))
    if outcome.results:
        print(json.dumps(outcome.results[0]), flush=True)


def measure(job: Path, given: argparse.Namespace, replicas: int, folder: str) -> dict[str, Any]:
    """One job under mpirun."""
    settings = {
        "checkpoint.folder": f"{folder}/run",
        "roles.servers": given.servers,
        "roles.workers": given.workers,
        "tables.w.aggregate": "true",
        "algorithm.evaluate_every": 0,
        "consistency.delay": DELAY,
        "recovery.replicas": replicas,
        "checkpoint.every": 0,
    }
    program = [__file__, "--data", given.data, "--batch", str(given.batch), "--job", str(job)]
    for name, value in settings.items():
        program += ["--set", f"{name}={value}"]
    return dict(json.loads(launch(program, 2 + given.servers + given.workers)))


def main() -> None:
    """Measure in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", choices=BATCH, default="flights")
    arguments.add_argument("--workers", type=int, default=4)
    arguments.add_argument("--servers", type=int, default=2)
    arguments.add_argument("--batch", type=int, default=0, help="rows; 0: as the data's job has it")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    arguments.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.job is not None:
        run_one(given)
        return
    runs: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    with tempfile.TemporaryDirectory() as folder:
        job = FLIGHTS
        if given.data == "zipf":
            job, data = Path(folder, "zipf.toml"), Path(folder, "zipf.libsvm")
            write(data, EXAMPLES, NONZEROS, BITS)
            job.write_text(JOB.format(file=data.name, kind="dense", rows=1 << BITS, passes=1))
            prepare(load(job).data, job.parent, 0, 1).close()  # builds the cache
        measure(job, given, 1, folder)  # compiles
        for number in range(given.rounds):
            for replicas in (0, 1) if number % 2 == 0 else (1, 0):
                runs[replicas].append(measure(job, given, replicas, folder))
                print(runs[replicas][-1], file=sys.stderr)
    limits = {
        "with a core each": lambda run: max(max(run["cpu"][role][0]) for role in ROLES),
        "all CPU seconds": lambda run: max(max(run["cpu"][role][1]) for role in ROLES),
        "on shared cores": lambda run: run["seconds"],
    }
    speeds = {
        name: {r: [run["examples"] / seconds(run) / 1e6 for run in each] for r, each in runs.items()}
        for name, seconds in limits.items()
    }
    own = speeds["with a core each"]
    report(
        f"training with one copy, {given.data}, {given.workers} workers + {given.servers} servers with a core each",
        median(own[1]),
        "M examples/s",
        SHARE * median(own[0]),
        f"{SHARE} of the speed without copies",
        True,
        speeds={name: {r: round(median(found), 3) for r, found in each.items()} for name, each in speeds.items()},
        shares={
            name: round(median([b / a for a, b in zip(each[0], each[1], strict=True)]), 3)
            for name, each in speeds.items()
        },
        busiest={
            role: {r: round(median([max(run["cpu"][role][0]) for run in each]), 3) for r, each in runs.items()}
            for role in ROLES
        },
        rounds=given.rounds,
    )


if __name__ == "__main__":
    main()
