"""What the workers have done so far, and how fast: sums for the log of the run. Pure."""

from typing import Any

from mpips.messages import Load

PROGRESS_SECONDS = 1.0


class Tally:
    """Counts examples and losses, by epoch and since the last report.

    Attributes
    ----------
    examples : rows trained on, over all epochs.
    rows : rows of one epoch.
    seconds : from the beginning of training to the last workload.
    loads : the servers' last reports, by rank.
    """

    def __init__(self) -> None:
        self.examples = 0
        self.rows = 0
        self.seconds = 0.0
        self.loads: dict[int, Load] = {}
        self._began = self._since = 0.0
        self._recent_rows, self._recent_loss = 0, 0.0
        self._epochs: dict[int, tuple[int, float]] = {}

    def begin(self, now: float) -> None:
        """Training begins."""
        self._began = self._since = now

    def add(self, epoch: int, rows: int, loss: float, now: float) -> None:
        """A workload is done: so many rows, and the loss summed over them."""
        self.examples += rows
        self.seconds = now - self._began
        self._recent_rows += rows
        self._recent_loss += loss
        before = self._epochs.get(epoch, (0, 0.0))
        self._epochs[epoch] = before[0] + rows, before[1] + loss

    def end_epoch(self, epoch: int) -> float:
        """The mean loss of an epoch, each row's from before it was learned from."""
        rows, loss = self._epochs.pop(epoch, (0, 0.0))
        return loss / max(1, rows)

    def due(self, now: float) -> bool:
        """Whether it is time for a report."""
        return now - self._since >= PROGRESS_SECONDS

    def report(self, epoch: int, epochs: int, now: float) -> dict[str, Any]:
        """The fields of a progress event, counted since the last."""
        fields: dict[str, Any] = {
            "epoch": epoch,
            "epochs": epochs,
            "examples": self.examples,
            "examples_per_second": self._recent_rows / (now - self._since),
            "servers": {str(rank): round(load.busy, 3) for rank, load in sorted(self.loads.items())},
            "bytes": sum(load.bytes for load in self.loads.values()),
        }
        if self.rows:
            fields["share"] = self.examples / (self.rows * epochs)
        if self._recent_rows:
            fields["loss"] = self._recent_loss / self._recent_rows
        self._since, self._recent_rows, self._recent_loss = now, 0, 0.0
        return fields
