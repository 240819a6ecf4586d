"""Images a second that mpips trains a network on, all of a job's ranks on this machine's cores, beside PyTorch with as
many threads, in turn: the same network, images, batch and optimiser.

Neither distorts images; PyTorch has them in memory as float32. Compared are epochs after the first. Of PyTorch's two
memory formats, channels first and last, the faster counts.

python benchmarks/networks.py [--network mlp] [--threads 2] [--workers 1] [--rounds 3] [--torch PYTHON]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import median, report

ROOT = Path(__file__).parent.parent
MPIPS = Path(sys.executable).with_name("mpips")
BATCH = 128
PUSH_EVERY = {"mlp": 4096, "convnet": 1024}  # images
EPOCHS = {"mlp": 6, "convnet": 3}
WANTED = {"mlp": 0.9, "convnet": 0.7}
LAYERS = {
    "mlp": """
    { layer = "connected", units = 512 },
    { layer = "relu" },
    { layer = "connected", units = 512 },
    { layer = "relu" },
    { layer = "connected" },
""",
    "convnet": """
    { layer = "convolution", channels = 20, size = 5 },
    { layer = "relu" },
    { layer = "pooling" },
    { layer = "convolution", channels = 50, size = 5 },
    { layer = "relu" },
    { layer = "pooling" },
    { layer = "connected", units = 500 },
    { layer = "relu" },
    { layer = "connected" },
""",
}
JOB = """
[roles]
servers = 1
data_servers = 1
workers = {workers}
[data]
format = "idx"
files = ["{data}/train-images-idx3-ubyte.gz"]
test_files = ["{data}/t10k-images-idx3-ubyte.gz"]
batch = {batch}
[algorithm]
name = "neural"
passes = {epochs}
[algorithm.neural]
rate = 0.01
step = {step}
threads = {threads}
layers = [{layers}]
[consistency]
delay = "eventual"
[checkpoint]
folder = "run"
"""
PEER = """
import gzip, json, sys, time
import numpy as np, torch
from torch import nn
data, network, batch, threads, epochs = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(threads)
pixels = np.frombuffer(gzip.open(data + "/train-images-idx3-ubyte.gz").read()[16:], np.uint8).reshape(-1, 1, 28, 28)
labels = np.frombuffer(gzip.open(data + "/train-labels-idx1-ubyte.gz").read()[8:], np.uint8)
images, labels = torch.from_numpy(pixels.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))
def make():
    if network == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                             nn.Linear(512, 10))
    return nn.Sequential(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))
best = 0.0
for layout in (torch.contiguous_format, torch.channels_last)[: 1 if network == "mlp" else 2]:
    model = make().to(memory_format=layout)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(epochs):
        order, begin = torch.randperm(len(labels)), time.perf_counter()
        for start in range(0, len(labels), batch):
            chosen = order[start : start + batch]
            some = images[chosen].contiguous(memory_format=layout)
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(some), labels[chosen]).backward()
            optimiser.step()
        if epoch:
            best = max(best, len(labels) / (time.perf_counter() - begin))
print(json.dumps(best))
"""


def ours(given: argparse.Namespace, folder: Path) -> float:
    """Images a second of the epochs after the first."""
    job = folder / "job.toml"
    job.write_text(
        JOB.format(
            workers=given.workers, data=ROOT / "inputs/data/mnist", batch=PUSH_EVERY[given.network],
            epochs=EPOCHS[given.network], step=BATCH, threads=given.threads, layers=LAYERS[given.network],
        )
    )  # fmt: skip
    done = subprocess.run([MPIPS, "run", job], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    events = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    ends = [event["time"] for event in events if event["event"] == "epoch"]
    return 60_000 * (len(ends) - 1) / (ends[-1] - ends[0])


def peer(given: argparse.Namespace) -> float:
    """The same of PyTorch."""
    arguments = [ROOT / "inputs/data/mnist", given.network, BATCH, given.threads * given.workers, EPOCHS[given.network]]
    line = [given.torch, "-c", PEER, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{done.stderr}\nPyTorch is this benchmark's peer: pip install '.[peers]', or --torch PYTHON that has it"
        )
    return float(json.loads(done.stdout))


def main() -> None:
    """Measure in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--network", choices=LAYERS, default="mlp")
    arguments.add_argument("--threads", type=int, default=2, help="of each worker; PyTorch has as many in all")
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--torch", default=sys.executable, help="a Python that has PyTorch")
    given = arguments.parse_args()
    found: list[tuple[float, float]] = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            found.append((ours(given, Path(folder)), peer(given)))
        print(found[-1], file=sys.stderr)
    report(
        f"{given.network}: images trained on, {given.workers} workers of {given.threads} threads",
        median([one for one, _ in found]), "images/s", median([other for _, other in found]), "PyTorch", True,
        ratios=[round(one / other, 3) for one, other in found], wanted=WANTED[given.network],
    )  # fmt: skip


if __name__ == "__main__":
    main()
