"""Evaluations of the model: of the job after an epoch, with what servers count, and of groups that watch it. Pure."""

from mpips import messages as m
from mpips.metrics import Evaluation
from mpips.scheduler.effects import Effects
from mpips.scheduler.view import MAIN, View


class Evaluations:
    """Adds up what workers find in their workloads, and what servers count.

    Parameters
    ----------
    model : the table whose non-zeros are counted.
    effects : takes messages and events.
    """

    def __init__(self, model: str | None, effects: Effects) -> None:
        self._model = model
        self._effects = effects
        self._found: dict[str, Evaluation] = {}
        self._epoch = 0
        self._evaluation: Evaluation | None = None  # of which servers are counting
        self._asked: dict[int, int] = {}  # how often each server was asked and has not answered
        self._nonzeros: dict[str, int] = {}

    def add(self, group: str, message: m.WorkDone) -> None:
        """A worker of a group has evaluated some batches."""
        self._found.setdefault(group, Evaluation()).add(message.rows, message.loss, message.histogram)

    def end(self, group: str, number: int, view: View) -> None:
        """All batches are in: of the epoch, or the round, of this number."""
        found = self._found.pop(group)
        if group != MAIN:
            figures = {"rows": found.rows, "auc": found.auc, "logloss": found.logloss}
            self._effects.log("live evaluation", group=group, round=number, **figures)
            return
        self._epoch, self._evaluation = number, found
        self._measure(view)

    @property
    def measuring(self) -> bool:
        """Whether servers are still counting."""
        return self._evaluation is not None

    def _measure(self, view: View) -> None:
        self._nonzeros = {}
        self._asked = {server: self._asked.get(server, 0) + 1 for server in view.servers}
        for server in view.servers:
            self._effects.send(server, m.Measure(self._epoch))

    def viewed(self, old: View, new: View) -> None:
        """Shards may have other servers now: what is being counted is counted again."""
        if self.measuring and old.servers != new.servers:
            self._measure(new)

    def measured(self, server: int, message: m.Measured) -> dict[str, float]:
        """A server has counted; the figures of the evaluation when it was the last one."""
        if self._evaluation is None or message.epoch != self._epoch or not self._asked.get(server):
            return {}
        self._asked[server] -= 1
        if self._asked[server]:  # it will count once more
            return {}
        for table, count in message.nonzeros.items():
            self._nonzeros[table] = self._nonzeros.get(table, 0) + count
        if any(self._asked.values()):
            return {}
        found, self._evaluation = self._evaluation, None
        count = self._nonzeros.get(self._model or "", 0)
        figures = {"auc": found.auc, "logloss": found.logloss, "nonzeros": count}
        self._effects.log("evaluation", epoch=self._epoch, rows=found.rows, **figures)
        return figures
