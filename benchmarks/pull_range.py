"""Pull of 4 MB and of 4 KB on one node, beside a copy of the same size in local memory.

python benchmarks/pull_range.py
"""

import numpy as np
from harness import median, microseconds, percentile, report, start

import mpips

LARGE, SMALL = 1 << 20, 1 << 10


def program(worker):
    table = worker.table("w")
    table.push(range(LARGE), np.ones(LARGE, np.float32)).wait()
    source, target = np.ones(LARGE, np.float32), np.empty(LARGE, np.float32)
    out = np.empty(LARGE, np.float32)
    pull, copy = microseconds(lambda: table.pull(range(LARGE), out).wait(), 600, lambda: np.copyto(target, source))
    few = out[:SMALL]
    small, small_copy = microseconds(
        lambda: table.pull(range(SMALL), few).wait(), 4000, lambda: np.copyto(target[:SMALL], source[:SMALL])
    )
    return pull, copy, small, small_copy


if __name__ == "__main__":
    start(3)
    spec = mpips.TableSpec(name="w", rows=LARGE, rule={"name": "assign"})
    results = mpips.run(program, [spec], roles=mpips.Roles(servers=1, workers=1))
    if results:
        pull, copy, small, small_copy = results[0]
        gigabytes = 4 * LARGE / 1e3
        report(
            "pull of 4 MB",
            gigabytes / median(pull),
            "GB/s",
            gigabytes / median(copy),
            "numpy.copyto in local memory",
            True,
            small_us_p50=round(median(small), 2),
            small_us_p99=round(percentile(small, 0.99), 2),
            small_copy_us=round(median(small_copy), 2),
        )
