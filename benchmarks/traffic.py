"""Bytes between nodes: what key caching saves alone, and what all filters save of a batch solver's way to its optimum.

    python benchmarks/traffic.py [--dtype float64]

Prints one JSON line. The solver runs `inputs/flights-l1.toml` with every rank for a node of its own, until the
objective is within 0.05 % of the optimum: without any filter, and with those of PUSHES and PULLS. Bytes are of keys,
values and notes. With filters those of the model's evaluation are among them; without, they are left out: a pass then
sends the same bytes as every other, and the first weights are pulled as in a pass. The peers are the factors of Li et
al. 2014, figure 11: 12.3 of workers, 40.3 of servers, with 8-byte values.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import key_lists, report, start

import mpips

MPIPS = Path(sys.executable).with_name("mpips")
JOB = Path(__file__).parent.parent / "inputs/flights-l1.toml"
OPTIMUM, NEAR = 0.397348, 1.0005
WORKERS, SERVERS = 12.3, 40.3
ENDS = ['{name="key_cache"}', '{name="compression",codec="zstd"}']
PUSHES = ['{name="kkt",tolerance=0.03}', '{name="delta",absolute=0.01,relative=0.02}', *ENDS]
PULLS = ['{name="delta",absolute=0.01,spread=0.7}', *ENDS]
EPOCHS, ROWS, KEYS = 10, 1 << 20, 4096


def program(worker):
    """Push, and pull, the same lists of keys epoch after epoch; bytes sent: of pushes, then of requests."""
    table, random = worker.table("w"), np.random.default_rng(1)
    lists = key_lists(ROWS, KEYS, random)
    for _ in range(EPOCHS):
        for keys in lists:
            table.push(keys, random.random(KEYS)).wait()
    pushes = table.traffic()
    for _ in range(EPOCHS):
        for keys in lists:
            table.pull(keys).wait()
    both = table.traffic()
    return [pushes.raw / pushes.sent, (both.raw - pushes.raw) / (both.sent - pushes.sent)]


def of_key_cache() -> None:
    """The part that runs under mpirun: the factors by which key caching alone lowers a worker's bytes."""
    start(3)
    filters = ({"name": "key_cache"},)
    spec = mpips.TableSpec(name="w", rows=ROWS, dtype="float64", push_filters=filters, pull_filters=filters)
    results = mpips.run(program, [spec], roles=mpips.Roles(servers=1, workers=1), separate_nodes=True)
    if results:
        pushes, requests = results[0]
        print(json.dumps({"pushes": round(pushes, 2), "requests": round(requests, 1)}), flush=True)


def solve(dtype: str, pushes: list[str], pulls: list[str], passes: int = 100) -> tuple[dict[str, Any], list[float]]:
    """One run: its result, and the objective after each pass."""
    settings = {
        "fabric.separate_nodes": "true",
        "tables.w.dtype": dtype,
        "tables.w.push_filters": f"[{', '.join(pushes)}]",
        "tables.w.pull_filters": f"[{', '.join(pulls)}]",
        "algorithm.passes": passes,
    }
    with tempfile.TemporaryDirectory() as folder:
        line = [MPIPS, "run", JOB, "--set", f"checkpoint.folder={folder}/run"]
        for name, value in settings.items():
            line += ["--set", f"{name}={value}"]
        subprocess.run(line, check=True, timeout=300, stdout=subprocess.DEVNULL)
        events = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
        result = json.loads(Path(folder, "run/result.json").read_text())
    return result, [event["objective"] for event in events if event["event"] == "report"]


def sent(result: dict[str, Any], role: str) -> int:
    """Bytes that the workers, or the servers, have sent in a run."""
    return int(result["traffic"][role]["sent"])


def reached(objectives: list[float]) -> int:
    """The first pass after which the objective is near the optimum."""
    return next(i for i, objective in enumerate(objectives, 1) if objective <= OPTIMUM * NEAR)


def without_filters(dtype: str) -> dict[str, Any]:
    """Bytes until the objective is near, and how the run went on."""
    whole, objectives = solve(dtype, [], [])
    first, _ = solve(dtype, [], [], passes=1)
    a_pass = {role: (sent(whole, role) - sent(first, role)) / (len(objectives) - 1) for role in ("workers", "servers")}
    passes = reached(objectives)
    return {
        "passes": passes,
        "workers": round(passes * a_pass["workers"] + a_pass["servers"]),  # a key has as many bytes as a value
        "servers": round((passes + 1) * a_pass["servers"]),
        **quality(whole),
    }


def with_filters(dtype: str) -> dict[str, Any]:
    """The same with all filters: a second run stops where the objective is near."""
    whole, objectives = solve(dtype, PUSHES, PULLS)
    passes = reached(objectives)
    while True:
        stopped, objectives = solve(dtype, PUSHES, PULLS, passes)
        if objectives[-1] <= OPTIMUM * NEAR:
            break
        passes += 1  # who has which rows differs from run to run
    return {
        "passes": passes,
        "workers": sent(stopped, "workers"),
        "servers": sent(stopped, "servers"),
        **quality(whole),
    }


def quality(result: dict[str, Any]) -> dict[str, Any]:
    """Of a run to its end."""
    figures = result["metrics"]
    return {
        "objective": round(figures["objective"], 6),
        "auc": round(figures["auc"], 4),
        "nonzeros": figures["nonzeros"],
        "seconds": round(result["training_seconds"], 1),
    }


def main() -> None:
    """Measure, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    arguments.add_argument("--key-cache", action="store_true", help="only the part that is an MPI job")
    given = arguments.parse_args()
    if given.key_cache:
        of_key_cache()
        return
    cached = subprocess.run(
        [sys.executable, __file__, "--key-cache"], check=True, timeout=300, capture_output=True, text=True
    )
    plain, filtered = without_filters(given.dtype), with_filters(given.dtype)
    report(
        f"bytes of the batch solver's servers, {given.dtype}, without filters / with them",
        plain["servers"] / filtered["servers"],
        "times fewer",
        SERVERS,
        "Li et al. 2014",
        True,
        workers=round(plain["workers"] / filtered["workers"], 1),
        workers_limit=WORKERS,
        plain=plain,
        filtered=filtered,
        key_cache_alone=json.loads(cached.stdout),
    )


if __name__ == "__main__":
    main()
