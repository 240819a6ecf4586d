"""A table of 1 GB to the disk and back: a first generation, all of it, beside dd; one with 1 % of the shards changed;
and the table restored by another number of servers, beside h5py reading the same bytes.

python benchmarks/flush.py [--megabytes 1024] [--servers 1] [--again 2] [--rounds 3] [--folder /tmp]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from harness import launch, median, report

import mpips
from mpips.checkpoint import Generation, generations
from mpips.plan import MB, Memory

WANTED = {"flush": 0.7, "restore": 0.6, "bytes": 0.02}
SHARD = 1 << 18  # rows of a shard of 1 MB


def program_of(rows: int, resume: bool) -> Any:
    """Changes all shards at first, and 1 % of them when the job goes on."""

    def program(worker: Any) -> None:
        keys = np.arange(0, rows, SHARD // 2)  # two rows of every shard
        if resume:
            keys = keys[: max(2, keys.size // 100)]
        worker.table("w").push(keys, np.ones(keys.size, np.float32)).wait()

    return program


def run_one(given: argparse.Namespace) -> None:
    """A rank of one job."""
    rows = given.megabytes * SHARD
    size = given.megabytes * MB * 5 // 4 // given.run_servers + 64 * MB
    results = mpips.run(
        program_of(rows, given.resume),
        [mpips.TableSpec(name="w", rows=rows)],
        roles=mpips.Roles(servers=given.run_servers, workers=1),
        run=given.run,
        replicas=0,
        resume=given.resume,
        memory=Memory(server=size, data_server=MB, worker=64 * MB),
    )
    if results is not None:
        print("{}")


def job(given: argparse.Namespace, run: Path, servers: int, resume: bool) -> dict[str, Any]:
    """Run one under mpirun; its events by their names, the last of each."""
    program = [__file__, "--megabytes", str(given.megabytes), "--run", str(run), "--run-servers", str(servers)]
    launch([*program, *(["--resume"] if resume else [])], 2 + servers)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {event["event"]: event for event in events}


def dd(given: argparse.Namespace, folder: str) -> float:
    """MB/s of dd with fsync."""
    target, begin = Path(folder, "dd"), time.perf_counter()
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={target}", "bs=1M", f"count={given.megabytes}", "conv=fsync"],
        check=True, capture_output=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    target.unlink()
    return given.megabytes / seconds


def read(given: argparse.Namespace, master: Path) -> float:
    """MB/s of h5py, which checks the same checksums."""
    begin = time.perf_counter()
    with Generation(master) as generation:
        files = [
            generation.path.parent / f"generation-{f.generation:06d}" / f"server-{f.rank}.h5" for f in generation.files
        ]
    for path in files:
        with h5py.File(path) as file:
            file["tables/w/values"][:]
    return given.megabytes / (time.perf_counter() - begin)


def main() -> None:
    """Measure in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=int, default=1024)
    arguments.add_argument("--servers", type=int, default=1)
    arguments.add_argument("--again", type=int, default=2, help="servers that it is restored by")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="on the disk to be measured")
    arguments.add_argument("--run", help=argparse.SUPPRESS)
    arguments.add_argument("--run-servers", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.run is not None:
        run_one(given)
        return
    found: dict[str, list[float]] = {name: [] for name in ("flush", "dd", "restore", "h5py", "share")}
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            run = Path(folder, "run")
            found["dd"].append(dd(given, folder))
            found["flush"].append(given.megabytes / job(given, run, given.servers, False)["checkpoint"]["seconds"])
            found["h5py"].append(read(given, generations(run)[0]))
            events = job(given, run, given.again, True)
            found["restore"].append(given.megabytes / events["restored"]["seconds"])
            newest = generations(run)[0]
            own = [newest, *newest.with_suffix("").iterdir()]
            found["share"].append(sum(path.stat().st_size for path in own) / (given.megabytes * MB))
        print({name: round(each[-1], 4) for name, each in found.items()}, file=sys.stderr)
    middle = {name: median(each) for name, each in found.items()}
    report(
        f"{given.megabytes} MB of changed float32 to the disk, {given.servers} servers",
        middle["flush"],
        "MB/s",
        middle["dd"],
        "dd with fsync",
        True,
        restored_by=given.again,
        restore=round(middle["restore"]),
        h5py=round(middle["h5py"]),
        restore_ratio=round(median([a / b for a, b in zip(found["restore"], found["h5py"], strict=True)]), 3),
        bytes_after_one_percent_changed=round(middle["share"], 4),
        wanted=WANTED,
    )


if __name__ == "__main__":
    main()
