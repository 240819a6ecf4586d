"""Bytes that a worker sends for a batch of a fully connected layer, and the time until all of it is applied:
activations and error gradients, which servers multiply out, against the gradient itself, in turn.

The layer has 4096 units and 4096 inputs, a batch 100 images, as in Chilimbi et al. 2014, section 4.4.1; every rank is
taken for a node of its own, so all bytes go one-sidedly. Each server reads its rows of the error gradients, and all
activations: with more servers the factor is smaller.

python benchmarks/activations.py [--servers 1] [--batch 100] [--times 15]
"""

import argparse
import time

import numpy as np
from harness import median, report, start

import mpips
from mpips.plan import Memory

UNITS, INPUTS = 4096, 4096
ROOM = 512 << 20


def main() -> None:
    """Push in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--servers", type=int, default=1)
    arguments.add_argument("--batch", type=int, default=100, help="images")
    arguments.add_argument("--times", type=int, default=15)
    given = arguments.parse_args()

    def program(worker):
        table, rng = worker.table("w"), np.random.default_rng(1)
        errors, fed = (rng.normal(size=(size, given.batch)).astype(np.float32) for size in (UNITS, INPUTS + 1))
        gradient = errors @ fed.T
        pushes = {
            "activations": lambda: table.push_product(errors, fed),
            "gradient": lambda: table.push(slice(None), gradient),
        }
        seconds, sent = {name: [] for name in pushes}, dict.fromkeys(pushes, 0)
        for _ in range(given.times):
            for name, push in pushes.items():
                before, begin = table.traffic().sent, time.perf_counter()
                push().wait()
                seconds[name].append(time.perf_counter() - begin)
                sent[name] = table.traffic().sent - before
        expected = given.times * 2 * gradient
        found = table.pull(slice(None)).wait()
        return [sent, {name: median(taken) for name, taken in seconds.items()}, float(np.abs(found - expected).max())]

    start(2 + given.servers)
    results = mpips.run(
        program,
        [mpips.TableSpec(name="w", rows=UNITS, width=INPUTS + 1, rule={"name": "add"})],
        roles=mpips.Roles(servers=given.servers, workers=1),
        memory=Memory(server=ROOM, worker=ROOM),
        separate_nodes=True,
    )
    if results:
        sent, seconds, error = results[0]
        report(
            f"bytes pushed for {UNITS} units of {INPUTS} inputs and {given.batch} images, {given.servers} servers",
            sent["gradient"] / sent["activations"], "times fewer as activations", 20.0,
            "of Adam, about", True, sent=sent,
            milliseconds={name: round(1e3 * taken, 1) for name, taken in seconds.items()},
            largest_difference=error,
        )  # fmt: skip


if __name__ == "__main__":
    main()
