"""Evaluations of the model: of the job after an epoch, with what servers count, and of groups that watch it. Pure."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from mpips import messages as m
from mpips.metrics import Confusion, Evaluation, Scores
from mpips.scheduler.effects import Effects
from mpips.views.view import MAIN, View


class Evaluations:
    """Adds up what workers find in their workloads, and what servers count.

    Parameters
    ----------
    model : the table whose non-zeros are counted; None: of none.
    classes : how many the rows are told apart into; None: two, by scores.
    effects : takes messages and events.
    """

    def __init__(self, model: str | None, classes: int | None, effects: Effects) -> None:
        self._model = model
        self._classes = classes
        self._effects = effects
        self._found: dict[str, Evaluation] = {}
        self._uncounted: deque[tuple[int, Evaluation]] = deque()  # by epoch; of the first, servers are counting
        self._asked: dict[int, int] = {}  # how often each server was asked and has not answered
        self._nonzeros: dict[str, int] = {}

    def add(self, group: str, message: m.WorkDone) -> None:
        """A worker of a group has evaluated some batches."""
        if group not in self._found:
            self._found[group] = Scores() if self._classes is None else Confusion(self._classes)
        self._found[group].add(message.rows, message.loss, message.counts)

    def end(self, group: str, number: int, view: View) -> None:
        """All batches are in: of the epoch, or the round, of this number."""
        found = self._found.pop(group)
        if group != MAIN:
            self._effects.log("live evaluation", group=group, round=number, rows=found.rows, **found.figures())
            return
        self._uncounted.append((number, found))
        if len(self._uncounted) == 1:
            self._measure(view.servers)

    @property
    def measuring(self) -> bool:
        """Whether servers are still counting."""
        return bool(self._uncounted)

    def _measure(self, servers: Sequence[int]) -> None:
        self._nonzeros = {}
        self._asked = {server: self._asked.get(server, 0) + 1 for server in servers}
        for server in servers:
            self._effects.send(server, m.Measure(self._uncounted[0][0]))

    def viewed(self, old: View, new: View) -> None:
        """Shards may have other servers now: what is being counted is counted again."""
        if self.measuring and (old.servers, old.ring) != (new.servers, new.ring):
            self._measure(new.servers)

    def measured(self, server: int, message: m.Measured) -> dict[str, Any]:
        """A server has counted; the figures of the evaluation when it was the last one."""
        if not self._uncounted or message.epoch != self._uncounted[0][0] or not self._asked.get(server):
            return {}
        self._asked[server] -= 1
        if self._asked[server]:  # it will count once more
            return {}
        for table, count in message.nonzeros.items():
            self._nonzeros[table] = self._nonzeros.get(table, 0) + count
        if any(self._asked.values()):
            return {}
        epoch, found = self._uncounted.popleft()
        figures = found.figures()
        if self._model is not None:
            figures["nonzeros"] = self._nonzeros.get(self._model, 0)
        self._effects.log("evaluation", epoch=epoch, rows=found.rows, **figures)
        if self._uncounted:
            self._measure(list(self._asked))
        return figures
