"""A network of which no rank has room for more than a part: memory of each rank, and images a second, in four
partitions, beside the same network in one piece at one worker.

Two fully connected layers of about 8,000 units on MNIST's digits have four times as many bytes of weights as a worker
has arena. Memory is what a rank has for itself alone (USS, arenas are shared memory and not in it) at the most, and
what of its arena was in use. The learning itself is as slow as so large a network is on two cores: batches are 100
images, and a few of them are an epoch.

python benchmarks/partitions.py [--partitions 4] [--images 2000] [--in-flight 2]
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from harness import report

from mpips.dataserver.idx import read

ROOT = Path(__file__).parent.parent
MNIST = ROOT / "inputs/data/mnist"
UNITS = 8192, 7500
INPUTS, CLASSES, BATCH, TEST = 784, 10, 100, 500
ARENA = 64  # MB, of a worker
SERVERS, ROOM = 4, 192  # and MB of each: for the weights, their velocities and what is on its way
EVERY = 0.2  # seconds from one look at the memory to the next
JOB = """
[roles]
servers = {servers}
data_servers = 1
workers = {partitions}
[data]
format = "idx"
files = ["train-images-idx3-ubyte"]
test_files = ["t10k-images-idx3-ubyte"]
batch = {batch}
[algorithm]
name = "neural"
passes = 1
[algorithm.neural]
rate = 0.01
step = {step}
threads = 1
partitions = {partitions}
in_flight = {in_flight}
layers = [
    {{ layer = "connected", units = {units[0]} }},
    {{ layer = "relu" }},
    {{ layer = "connected", units = {units[1]} }},
    {{ layer = "relu" }},
    {{ layer = "connected" }},
]
[consistency]
delay = "eventual"
[recovery]
replicas = 0
[memory]
server = "{server}"
worker = "{worker}"
[checkpoint]
folder = "run"
"""


def subset(folder: Path, images: int) -> None:
    """So many of MNIST's images for training, and some for testing."""
    for name, count in (("train", images), ("t10k", TEST)):
        for kind in ("images-idx3", "labels-idx1"):
            content = read(MNIST / f"{name}-{kind}-ubyte.gz")[:count]
            head = bytes([0, 0, 8, content.ndim]) + np.array(content.shape, ">u4").tobytes()
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + content.tobytes())


def run(given: argparse.Namespace, partitions: int, folder: Path) -> dict[str, Any]:
    """Images a second, accuracy, and megabytes of the workers: their own at the most, and of their arenas."""
    job = folder / "job.toml"
    job.write_text(
        JOB.format(
            servers=SERVERS, partitions=partitions, batch=BATCH, step=BATCH // given.in_flight,
            in_flight=given.in_flight, units=UNITS, server=f"{ROOM} MB", worker=f"{ARENA} MB",
        )
    )  # fmt: skip
    own: defaultdict[int, float] = defaultdict(float)
    with (folder / "said").open("w") as said:
        command = [Path(sys.executable).with_name("mpips"), "run", job]
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        while process.poll() is None:
            time.sleep(EVERY)
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, psutil.Error):
                for entry in json.loads((folder / "run/ranks.json").read_text()):
                    if entry["role"] == "worker":
                        used = psutil.Process(entry["pid"]).memory_full_info().uss / 1e6
                        own[entry["rank"]] = max(own[entry["rank"]], used)
    finally:
        process.terminate()
        process.wait()
    if process.returncode:
        sys.exit((folder / "said").read_text())
    events = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    times = {event["event"]: event["time"] for event in events if event["event"] in ("training", "epoch")}
    result = json.loads((folder / "run/result.json").read_text())
    return {
        "images_per_second": round(given.images / (times["epoch"] - times["training"]), 1),
        "own_mb": [round(own[rank]) for rank in sorted(own)],
        "accuracy": result["metrics"]["accuracy"],
    }


def main() -> None:
    """Measure both, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--partitions", type=int, default=4)
    arguments.add_argument("--images", type=int, default=2000)
    arguments.add_argument("--in-flight", type=int, default=2)
    given = arguments.parse_args()
    found = {}
    for partitions in (given.partitions, 1):
        with tempfile.TemporaryDirectory() as folder:
            subset(Path(folder), given.images)
            found[partitions] = run(given, partitions, Path(folder))
        print(partitions, found[partitions], file=sys.stderr)
    weights = (INPUTS + 1) * UNITS[0] + (UNITS[0] + 1) * UNITS[1] + (UNITS[1] + 1) * CLASSES
    report(
        f"a network of {4 * weights / 1e6:.0f} MB at workers with arenas of {ARENA} MB: memory of a rank's own",
        max(found[given.partitions]["own_mb"]), "MB", max(found[1]["own_mb"]), "in one piece at one worker", False,
        network_to_arena=round(4 * weights / (ARENA * 1e6), 2), runs=found,
    )  # fmt: skip


if __name__ == "__main__":
    main()
