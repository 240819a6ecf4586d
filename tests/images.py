"""Images for tests: squares and stripes that a small network can tell apart, written as IDX."""

import gzip
from pathlib import Path

import numpy as np

SIDE = 12


def write_idx(path: Path, content: np.ndarray) -> None:
    """An IDX file of unsigned bytes, gzipped if its name says so."""
    head = bytes([0, 0, 8, content.ndim]) + np.array(content.shape, ">u4").tobytes()
    data = head + content.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, SIDE, SIDE) and labels: 0 a bar, 1 a pole, 2 a square, in noise."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 60, (count, SIDE, SIDE)), rng.integers(0, 3, count)
    for image, label in zip(images, labels, strict=True):
        y, x = rng.integers(1, SIDE - 5, 2)
        height, width = [(2, 5), (5, 2), (4, 4)][label]
        image[y : y + height, x : x + width] = rng.integers(150, 256)
    return images.astype(np.uint8), labels.astype(np.uint8)


def write_shapes(folder: Path, train: int = 300, test: int = 90) -> None:
    """Training and test files as MNIST has them."""
    for seed, (name, count) in enumerate({"train": train, "t10k": test}.items()):
        images, labels = shapes(count, seed)
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels)
