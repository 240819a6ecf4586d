"""Push of 4,096 scattered keys with rule "add": until the call returns, until the acknowledgement, and many in flight.

The peer is NumPy on local memory, without any other process, measured in turn.

The two take turns of 100, so that neither has its caches emptied by the other each time.

python benchmarks/push_keys.py [sparse] [--rows 1048576]
"""

import time

import numpy as np
from harness import key_lists, median, percentile, report, start, table_arguments

import mpips

KEYS, TIMES, WINDOW, TURN = 4096, 3000, 8, 100

given = table_arguments(__doc__)
ROWS = given.rows


def program(worker):
    table = worker.table("w")
    random = np.random.default_rng(1)
    lists = key_lists(ROWS, KEYS, random)
    values = np.ones(KEYS, np.float32)
    for keys in lists:
        table.push(keys, values).wait()
    returned, acknowledged, streams, adds = [], [], [], []
    local = np.zeros(ROWS, np.float32)
    for _ in range(TIMES // TURN):
        for i in range(TURN):
            begin = time.perf_counter()
            task = table.push(lists[i % 64], values)
            middle = time.perf_counter()
            task.wait()
            returned.append((middle - begin) * 1e6)
            acknowledged.append((time.perf_counter() - begin) * 1e6)
        for i in range(TURN):
            begin = time.perf_counter()
            local[lists[i % 64]] += values
            adds.append((time.perf_counter() - begin) * 1e6)
    for _ in range(10):
        begin = time.perf_counter()
        tasks = []
        for i in range(TIMES // 10):
            tasks.append(table.push(lists[i % 64], values))
            if len(tasks) > WINDOW:
                tasks.pop(0).wait()
        for task in tasks:
            task.wait()
        streams.append(KEYS * (TIMES // 10) / (time.perf_counter() - begin) / 1e6)
    return returned, acknowledged, streams, adds


if __name__ == "__main__":
    start(3)
    spec = mpips.TableSpec(name="w", kind=given.kind, rows=ROWS)
    results = mpips.run(program, [spec], roles=mpips.Roles(servers=1, workers=1))
    if results:
        returned, acknowledged, streams, adds = results[0]
        report(
            f"push of {KEYS:,} scattered keys, {given.kind}, acknowledged",
            median(acknowledged),
            "us, p50",
            median(adds),
            "numpy's w[keys] += values in local memory",
            False,
            p99=round(percentile(acknowledged, 0.99), 1),
            returned_us_p50=round(median(returned), 1),
            rows=ROWS,
            mkeys_per_second=round(median(streams), 1),
        )
