"""Push of 4 KB and of 4 MB with rule "add": until the acknowledgement, and several in flight, beside a local addition.

python benchmarks/push_range.py
"""

import time

import numpy as np
from harness import median, microseconds, percentile, report, start

import mpips

LARGE, SMALL, TIMES, WINDOW = 1 << 20, 1 << 10, 300, 3


def program(worker):
    table = worker.table("w")
    values, local = np.ones(LARGE, np.float32), np.zeros(LARGE, np.float32)
    copy = np.empty(LARGE, np.float32)

    def copy_and_add() -> None:
        np.copyto(copy, values)
        np.add(local, copy, out=local)

    large, added = microseconds(lambda: table.push(range(LARGE), values).wait(), TIMES, copy_and_add)
    few = values[:SMALL]
    (small,) = microseconds(lambda: table.push(range(SMALL), few).wait(), 4000)
    streams = []
    for _ in range(10):
        begin = time.perf_counter()
        tasks = []
        for _ in range(TIMES // 10):
            tasks.append(table.push(range(LARGE), values))
            if len(tasks) > WINDOW:
                tasks.pop(0).wait()
        for task in tasks:
            task.wait()
        streams.append(4 * LARGE * (TIMES // 10) / (time.perf_counter() - begin) / 1e9)
    return large, added, small, streams


if __name__ == "__main__":
    start(3)
    spec = mpips.TableSpec(name="w", rows=LARGE)
    results = mpips.run(program, [spec], roles=mpips.Roles(servers=1, workers=1))
    if results:
        large, added, small, streams = results[0]
        gigabytes = 4 * LARGE / 1e3
        report(
            "push of 4 MB, dense, add, several in flight",
            median(streams),
            "GB/s",
            gigabytes / median(added),
            "copy and add in local memory, one thread",
            True,
            one_at_a_time=round(gigabytes / median(large), 2),
            small_us_p50=round(median(small), 1),
            small_us_p99=round(percentile(small, 0.99), 1),
        )
