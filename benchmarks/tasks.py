"""What four dependencies add to a push: a push of 16 rows after four others that are under way, against a bare one.

Both follow the same four pushes; the time is that of the call alone, and of the whole until the acknowledgement.

python benchmarks/tasks.py
"""

import time

import numpy as np
from harness import median, percentile, report, start

import mpips

ROWS, TIMES = 16, 4000
ALLOWED_MICROSECONDS = 15.0


def program(worker):
    table = worker.table("w")
    values = np.ones(ROWS, np.float32)
    rows = range(ROWS)
    calls, wholes = {False: [], True: []}, {False: [], True: []}
    for i in range(TIMES):
        depends = i % 2 == 1
        before = [table.push(rows, values) for _ in range(4)]
        begin = time.perf_counter()
        task = table.push(rows, values, after=before if depends else ())
        middle = time.perf_counter()
        task.wait()
        calls[depends].append((middle - begin) * 1e6)
        wholes[depends].append((time.perf_counter() - begin) * 1e6)
        worker.settle()
    return [calls[False], calls[True], wholes[False], wholes[True]]


if __name__ == "__main__":
    start(3)
    spec = mpips.TableSpec(name="w", rows=ROWS)
    results = mpips.run(program, [spec], roles=mpips.Roles(servers=1, workers=1))
    if results:
        bare, depending, bare_whole, depending_whole = results[0]
        report(
            "four dependencies of a push, until it is acknowledged",
            median(depending_whole) - median(bare_whole),
            "us, p50",
            ALLOWED_MICROSECONDS,
            "us allowed",
            False,
            call_us=round(median(depending) - median(bare), 2),
            bare_call_us=round(median(bare), 2),
            bare_whole_us=round(median(bare_whole), 2),
            whole_p99_us=round(percentile(depending_whole, 0.99) - percentile(bare_whole, 0.99), 2),
        )
