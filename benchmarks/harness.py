"""What the benchmarks share: start themselves under mpirun, take times in turn, print one JSON line."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from mpips.cli.cleanup import Scratch
from mpips.cli.launch import command, environment, find

UNDER_MPIRUN = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
TIMEOUT = 540.0
TURN = 50


def start(ranks: int) -> None:
    """Run this very script again as an MPI job of so many ranks, then leave; returns at once inside that job."""
    if any(name in os.environ for name in UNDER_MPIRUN):
        return
    print(launch(sys.argv, ranks))
    sys.exit(0)


def launch(program: Sequence[str], ranks: int) -> str:
    """The last line of JSON that a Python program says under mpirun."""
    scratch = Scratch()
    try:
        line = command(find(), [sys.executable, *program], ranks=ranks, hosts=None, extra=(), scratch=scratch)
        done = subprocess.run(
            line, env=environment(ranks, None, scratch), timeout=TIMEOUT, capture_output=True, text=True, check=False
        )
    finally:
        scratch.clear()
    lines = [text for text in done.stdout.splitlines() if text.startswith("{")]
    if done.returncode or not lines:
        sys.stderr.write(done.stderr)
        sys.exit(done.returncode or 1)
    return lines[-1]


def report(name: str, value: float, unit: str, limit: float, of: str, higher_is_better: bool, **more: Any) -> None:
    """Print the line: the figure, the limit or peer measured in the same run, and the ratio of the two."""
    line = {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "limit": round(limit, 3),
        "limit_is": of,
        "ratio": round(value / limit, 3),
        "better": "higher" if higher_is_better else "lower",
        **more,
    }
    print(json.dumps(line), flush=True)


def microseconds(work: Callable[[], Any], times: int, *others: Callable[[], Any]) -> list[list[float]]:
    """Microseconds of each call of `work` and of the `others`, in turns of TURN calls; each turn's first few don't
    count.

    So drifts of the machine meet all of them, and none has its caches emptied by another at every call.
    """
    taken: list[list[float]] = [[] for _ in range(1 + len(others))]
    for _ in range(max(1, times // TURN)):
        for samples, call in zip(taken, (work, *others), strict=True):
            for i in range(-3, TURN):
                begin = time.perf_counter()
                call()
                if i >= 0:
                    samples.append((time.perf_counter() - begin) * 1e6)
    return taken


def table_arguments(text: str) -> argparse.Namespace:
    """The command line of a benchmark of scattered keys: the table's `kind` and its `rows`."""
    arguments = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("kind", nargs="?", default="dense", choices=["dense", "sparse"])
    arguments.add_argument("--rows", type=int, default=1 << 20, help="of the table")
    return arguments.parse_args()


def key_lists(rows: int, keys: int, random: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    """64 sorted lists of so many scattered keys below `rows`."""
    return [np.sort(random.choice(rows, keys, replace=False)).astype(np.uint64) for _ in range(64)]


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of several runs' figures, by name."""
    return {name: round(median([run[name] for run in runs]), 4) for name in runs[0]}


def percentile(samples: list[float], share: float) -> float:
    """The sample below which so large a share of them lies."""
    return sorted(samples)[min(len(samples) - 1, int(share * len(samples)))]


__all__ = [
    "key_lists",
    "launch",
    "median",
    "medians",
    "microseconds",
    "percentile",
    "report",
    "start",
    "table_arguments",
]
