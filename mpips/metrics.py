"""Quality of scores, added up from workloads: logloss exactly, the area under the ROC curve from a histogram."""

import zlib
from typing import Any

import numpy as np

BINS = 1 << 14
FINEST = 64.0  # scores within ±1/FINEST have bins of equal width, larger ones bins of equal ratio
LIMIT = 16.0  # scores beyond ±LIMIT share the outermost bins


def pack(histogram: np.ndarray[Any, np.dtype[np.uint32]]) -> bytes:
    """A histogram (2, BINS) for a message: most of its bins are empty."""
    return zlib.compress(histogram.tobytes(), 1)


class Evaluation:
    """Sums over the rows evaluated so far.

    Scores of a bin count as equal. Bins are about 0.001 wide, relative to scores above 1/64: the area is off by less
    than 1e-5 unless all scores lie closer together than some hundred bins.

    Attributes
    ----------
    rows : rows evaluated.
    loss : logistic loss summed over them.
    histogram : (2, BINS) uint32, rows by label and by bin of their score, ascending.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.loss = 0.0
        self.histogram: np.ndarray[Any, np.dtype[np.uint32]] = np.zeros((2, BINS), np.uint32)

    def add(self, rows: int, loss: float, histogram: bytes) -> None:
        """Add a workload's sums; `histogram` as `pack` gives it."""
        self.rows += rows
        self.loss += loss
        self.histogram += np.frombuffer(zlib.decompress(histogram), np.uint32).reshape(2, BINS)

    @property
    def logloss(self) -> float:
        """Mean logistic loss."""
        return self.loss / self.rows if self.rows else float("nan")

    @property
    def auc(self) -> float:
        """Share of (positive, negative) pairs in which the positive row scores higher; ties count half."""
        negatives, positives = self.histogram.astype(np.float64)
        pairs = negatives.sum() * positives.sum()
        below = np.cumsum(negatives) - negatives
        return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else float("nan")
