"""Pull of 4,096 scattered float32 keys on one node, beside NumPy's own gather from local memory.

python benchmarks/pull_keys.py [sparse] [--rows 1048576]
"""

import numpy as np
from harness import key_lists, median, microseconds, percentile, report, start, table_arguments

import mpips

KEYS = 4096

given = table_arguments(__doc__)
ROWS = given.rows


def program(worker):
    table = worker.table("w")
    random = np.random.default_rng(1)
    lists = key_lists(ROWS, KEYS, random)
    for keys in lists:
        table.push(keys, random.random(KEYS, np.float32)).wait()
    local = random.random(ROWS, np.float32)
    out = np.empty(KEYS, np.float32)
    turn = iter(range(1 << 60))
    pull, take = microseconds(
        lambda: table.pull(lists[next(turn) % 64], out).wait(),
        4000,
        lambda: np.take(local, lists[next(turn) % 64], out=out, mode="clip"),
    )
    return pull, take


if __name__ == "__main__":
    start(3)
    spec = mpips.TableSpec(name="w", kind=given.kind, rows=ROWS, rule={"name": "assign"})
    results = mpips.run(program, [spec], roles=mpips.Roles(servers=1, workers=1))
    if results:
        pull, take = results[0]
        report(
            f"pull of {KEYS:,} scattered keys, {given.kind}",
            median(pull),
            "us, p50",
            median(take),
            "numpy.take in local memory",
            False,
            p99=round(percentile(pull, 0.99), 1),
            rows=ROWS,
            mkeys_per_second=round(KEYS / median(pull), 1),
        )
