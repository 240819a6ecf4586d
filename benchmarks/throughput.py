"""Sparse logistic regression on 1 M examples of 40 non-zeros, Zipf keys in 2^22: 2 workers, 1 server, from the binary
cache.

The peer is a loop in one numba thread of one process: FTRL-proximal, an example at a time, no parameter server.

python benchmarks/throughput.py [--examples 1000000] [--passes 4] [--kind dense]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import median, report
from numba import njit
from zipf import write

from mpips.dataserver.batch import Batch
from mpips.dataserver.source import prepare
from mpips.job import load

BITS, NONZEROS = 22, 40
JOB = """
[roles]
servers = 1
data_servers = 1
workers = 2
[data]
format = "libsvm"
files = ["{file}"]
batch = 10000
test = {{ every = 50, offset = 49 }}
[tables.w]
kind = "{kind}"
rows = {rows}
rule = {{ name = "ftrl", alpha = 0.1, beta = 1.0, l1 = 1.0, l2 = 1.0 }}
[algorithm]
name = "linear"
table = "w"
passes = {passes}
[consistency]
delay = "auto"
[checkpoint]
every = 0.0
"""


@njit(nogil=True, cache=True)
def ftrl_loop(indptr, keys, values, labels, z, n, alpha, beta, l1, l2):
    """One pass of FTRL-proximal over a batch, an example at a time (McMahan et al. 2013, Algorithm 1)."""
    w = np.zeros(256, np.float32)
    loss = 0.0
    for row in range(labels.size):
        start, stop = indptr[row], indptr[row + 1]
        score = 0.0
        for k in range(start, stop):
            key = keys[k]
            weight = 0.0
            if abs(z[key]) > l1:
                weight = -(z[key] - np.sign(z[key]) * l1) / ((beta + np.sqrt(n[key])) / alpha + l2)
            w[k - start] = weight
            score += weight * (values[k] if values.size else 1.0)
        p = 1.0 / (1.0 + np.exp(-score))
        loss -= np.log(max(1e-12, p if labels[row] > 0.5 else 1.0 - p))
        for k in range(start, stop):
            key = keys[k]
            g = (p - labels[row]) * (values[k] if values.size else 1.0)
            squared = n[key] + g * g
            z[key] += g - (np.sqrt(squared) - np.sqrt(n[key])) / alpha * w[k - start]
            n[key] = squared
    return loss


def peer(job: Path) -> float:
    """Examples per second of the loop, over all training batches, read into memory beforehand."""
    spec = load(job).data
    data = prepare(spec, job.parent, 0, 1)
    batches = []
    for i in range(data.train):
        blob = np.empty(data.size(i), np.uint8)
        data.read(i, 1, blob)
        batch = Batch.unpack(blob)
        batches.append((batch.indptr, batch.keys[batch.indices].astype(np.int32), batch.values, batch.labels))
    z, n = np.zeros(1 << BITS, np.float32), np.zeros(1 << BITS, np.float32)
    for batch in batches[:2]:
        ftrl_loop(*batch, z, n, 0.1, 1.0, 1.0, 1.0)
    begin = time.perf_counter()
    for batch in batches:
        ftrl_loop(*batch, z, n, 0.1, 1.0, 1.0, 1.0)
    seconds = time.perf_counter() - begin
    data.close()
    return data.train_rows / seconds


def ours(job: Path, run: Path) -> dict:
    """The result of `mpips run`."""
    subprocess.run(
        [str(Path(sys.executable).with_name("mpips")), "run", str(job), "--set", f"checkpoint.folder={run}"],
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )
    return json.loads((run / "result.json").read_text())


def main() -> None:
    """Measure in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--examples", type=int, default=1_000_000)
    arguments.add_argument("--passes", type=int, default=4)
    arguments.add_argument("--kind", choices=["dense", "sparse"], default="dense")
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "zipf.libsvm")
        write(data, given.examples, NONZEROS, BITS)
        job = Path(folder, "zipf.toml")
        rows = 1 << BITS if given.kind == "dense" else 1 << 20
        job.write_text(JOB.format(file=data.name, kind=given.kind, rows=rows, passes=given.passes))
        prepare(load(job).data, job.parent, 0, 1).close()  # builds the cache
        ours(job, Path(folder, "run"))  # compiles
        peers, results = [], []
        for _ in range(given.rounds):
            peers.append(peer(job))
            results.append(ours(job, Path(folder, "run")))
    speeds = [result["examples_per_second"] for result in results]
    report(
        f"training on {given.examples:,} x {NONZEROS}, Zipf, 2^{BITS} {given.kind} keys, 2 workers + 1 server",
        median(speeds) / 1e6,
        "M examples/s",
        median(peers) / 1e6,
        "FTRL loop in one numba thread of one process",
        True,
        passes=given.passes,
        auc=round(results[-1]["metrics"]["auc"], 4),
        all=[round(speed / 1e6, 3) for speed in speeds],
    )


if __name__ == "__main__":
    main()
