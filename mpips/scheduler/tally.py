"""What the workers have done so far, and how fast: sums for the log of the run. Pure."""

from collections.abc import Sequence
from typing import Any

from mpips.messages import Load, Traffic

SHORTEST_REPORT, LONGEST_REPORT = 0.1, 1.0  # seconds between progress events
REPORT_SHARE = 0.05  # … and as a share of the time so far: a short run has a curve, a long one a short file


class Tally:
    """Counts examples and losses, by epoch and since the last report.

    Parameters
    ----------
    share : of an epoch that is waited for.

    Attributes
    ----------
    examples : rows trained on, over all epochs.
    rows : rows of one epoch.
    seconds : from the beginning of training to the last workload.
    loads : the last reports of servers and workers, by rank.
    idle : share of its time that a worker has waited, of those that have finished.
    traffic : bytes that each rank has sent to other nodes.
    copied : bytes that each server has sent to copies on their way.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.examples = 0
        self.rows = 0
        self.seconds = 0.0
        self.loads: dict[int, Load] = {}
        self.idle: dict[int, float] = {}
        self.traffic: dict[int, Traffic] = {}
        self.copied: dict[int, int] = {}
        self._share = share
        self._began = self._since = 0.0
        self._recent_rows, self._recent_loss = 0, 0.0
        self._epochs: dict[int, tuple[int, float]] = {}

    def begin(self, now: float) -> None:
        """Training begins."""
        self._began = self._since = now

    def hear(self, rank: int, load: Load) -> None:
        """A server or worker reports."""
        self.loads[rank] = load
        self.traffic[rank] = load.traffic

    def add(self, epoch: int, rows: int, loss: float, now: float) -> None:
        """A workload is done: so many rows, and the loss summed over them."""
        self.examples += rows
        self.seconds = now - self._began
        self._recent_rows += rows
        self._recent_loss += loss
        before = self._epochs.get(epoch, (0, 0.0))
        self._epochs[epoch] = before[0] + rows, before[1] + loss

    def passed(self, passes: int, now: float) -> None:
        """A batch solver has gone over all rows so often."""
        self._recent_rows += passes * self.rows - self.examples
        self.examples = passes * self.rows
        self.seconds = now - self._began

    def end_epoch(self, epoch: int) -> float:
        """The mean loss of an epoch, each row's from before it was learned from."""
        rows, loss = self._epochs.pop(epoch, (0, 0.0))
        return loss / max(1, rows)

    def due(self, now: float) -> bool:
        """Whether it is time for a report."""
        pause = min(LONGEST_REPORT, max(SHORTEST_REPORT, REPORT_SHARE * (now - self._began)))
        return now - self._since >= pause

    def report(
        self, epoch: int, epochs: int, servers: Sequence[int], workers: Sequence[int], now: float
    ) -> dict[str, Any]:
        """The fields of a progress event, counted since the last."""
        loads = {rank: self.loads[rank] for rank in servers if rank in self.loads}
        waits = [1.0 - self.loads[rank].busy for rank in workers if rank in self.loads]
        fields: dict[str, Any] = {
            "epoch": epoch,
            "epochs": epochs,
            "examples": self.examples,
            "examples_per_second": self._recent_rows / (now - self._since),
            "servers": {str(rank): round(load.busy, 3) for rank, load in loads.items()},
            "bytes": sum(load.bytes for load in loads.values()),
            "sent": {"workers": self.sent(workers).sent, "servers": self.sent(servers).sent},
        }
        if waits:
            fields["idle"] = round(sum(waits) / len(waits), 4)
        if self.rows:
            fields["share"] = min(1.0, self.examples / (self.rows * epochs * self._share))
        if self._recent_loss:  # a batch solver has an objective instead
            fields["loss"] = self._recent_loss / self._recent_rows
        self._since, self._recent_rows, self._recent_loss = now, 0, 0.0
        return fields

    @property
    def all_copied(self) -> int:
        """Bytes of copies that servers have taken in all."""
        return sum(self.copied.values())

    def sent(self, ranks: Sequence[int]) -> Traffic:
        """What some ranks have sent to other nodes in all."""
        return Traffic.total(self.traffic[rank] for rank in ranks if rank in self.traffic)
