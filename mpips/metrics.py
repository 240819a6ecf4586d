"""How good a model is, added up from workloads: of scores the logloss exactly, and the area under the ROC curve from a
histogram; of classes how often each is taken for which.
"""

import zlib
from typing import Any, Protocol

import numpy as np

BINS = 1 << 14
FINEST = 64.0  # scores within ±1/FINEST have bins of equal width, larger ones bins of equal ratio
LIMIT = 16.0  # scores beyond ±LIMIT share the outermost bins


SCORES = 2, BINS  # the shape of a histogram of scores by label
MOST_CLASSES = 100  # of which all is told that was counted

Counts = np.ndarray[Any, np.dtype[np.uint32]]


def pack(counts: Counts) -> bytes:
    """Counts for a message: most of them are 0."""
    return zlib.compress(counts.tobytes(), 1)


class Evaluation(Protocol):
    """Sums over the rows evaluated so far.

    Attributes
    ----------
    rows : rows evaluated.
    """

    rows: int

    def add(self, rows: int, loss: float, counts: bytes) -> None:
        """Add a workload's sums; `counts` as `pack` gives it."""

    def figures(self) -> dict[str, Any]:
        """What there is to say, by name."""


class Scores:
    """Sums over the rows evaluated so far, of two classes.

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
        self.histogram: Counts = np.zeros(SCORES, np.uint32)

    def add(self, rows: int, loss: float, counts: bytes) -> None:
        """As `Evaluation.add`."""
        self.rows += rows
        self.loss += loss
        self.histogram += np.frombuffer(zlib.decompress(counts), np.uint32).reshape(SCORES)

    def figures(self) -> dict[str, Any]:
        """As `Evaluation.figures`."""
        return {"auc": self.auc, "logloss": self.logloss}

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


class Confusion:
    """Sums over the rows evaluated so far, of any number of classes.

    Attributes
    ----------
    rows : rows evaluated.
    loss : cross-entropy summed over them.
    counts : (classes, classes) uint32, rows by label and by the class that they are taken for.
    """

    def __init__(self, classes: int) -> None:
        self.rows = 0
        self.loss = 0.0
        self.counts: Counts = np.zeros((classes, classes), np.uint32)

    def add(self, rows: int, loss: float, counts: bytes) -> None:
        """As `Evaluation.add`."""
        self.rows += rows
        self.loss += loss
        self.counts += np.frombuffer(zlib.decompress(counts), np.uint32).reshape(self.counts.shape)

    def figures(self) -> dict[str, Any]:
        """As `Evaluation.figures`."""
        if not self.rows:
            return {"accuracy": float("nan"), "logloss": float("nan")}
        right = int(np.trace(self.counts))
        found: dict[str, Any] = {"accuracy": right / self.rows, "logloss": self.loss / self.rows}
        if len(self.counts) <= MOST_CLASSES:
            found["confusion"] = self.counts.tolist()
        return found
