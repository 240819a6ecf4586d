"""How a job comes up: every rank is there, the data are read, the servers make the tables. Pure."""

from typing import Any, NamedTuple

from mpips import messages as m
from mpips.plan import Plan
from mpips.scheduler.effects import Effects
from mpips.scheduler.ledger import Batches
from mpips.scheduler.traces import Traces
from mpips.table import TableSpec
from mpips.views.view import View


class Resume(NamedTuple):
    """A generation to go on from."""

    path: str
    number: int
    progress: dict[str, Any]


class StartUp:
    """What is known of ranks, data and tables.

    Parameters
    ----------
    plan : the job.
    resume : generations to go on from, the best first; empty to start afresh.
    effects : takes messages and events.
    traces : which keys servers are to trace.

    Attributes
    ----------
    hellos : of every rank.
    tables : the job's, once the data are known.
    asked : when servers were first asked to make them, in seconds of the scheduler's clock.
    complete : whether they are made.
    """

    def __init__(self, plan: Plan, resume: list[Resume], effects: Effects, traces: Traces) -> None:
        self.hellos: dict[int, m.Hello] = {}
        self.tables: list[TableSpec] = []
        self.complete = False
        self._plan = plan
        self._resume = resume
        self._effects = effects
        self._traces = traces
        self._data: dict[int, m.DataReady] = {}  # by part
        self.asked = 0.0
        self._asked = False
        self._awaited: set[int] = set()
        self._errors: list[str] = []

    @property
    def resumed(self) -> Resume | None:
        """What the job goes on from."""
        return self._resume[0] if self._resume else None

    @property
    def batches(self) -> list[Batches]:
        """What each part of the data has, in order."""
        return [Batches(part, data.train, data.test) for part, data in sorted(self._data.items())]

    @property
    def groups(self) -> list[tuple[int, int]]:
        """The key ranges of the data's fields."""
        return next((data.groups for _, data in sorted(self._data.items())), [])

    @property
    def rows(self) -> int:
        """Rows to train on."""
        return sum(data.train_rows for data in self._data.values())

    def data_ready(self, source: int, message: m.DataReady) -> None:
        """A part of the data is read; or, by another rank, read again."""
        if message.part in self._data:
            return
        self._data[message.part] = message
        skipped = f", {message.skipped} malformed lines skipped" if message.skipped else ""
        rows = f"{message.train_rows:,} training and {message.test_rows:,} test rows"
        where = f"data server {source}, part {message.part}"
        self._effects.log("note", text=f"{where}: {rows}, {message.features:,} features{skipped}")

    def go_on(self, view: View, now: float) -> str | None:
        """Have the servers make the tables when all ranks and data are there; why that is of no use, if it is not."""
        expected = set(range(len(view.parts))) if self._plan.data is not None else set()
        present = {*view.lost, *self.hellos}
        if self._asked or len(present) < len(view.nodes) or set(self._data) != expected:
            return None
        if self._data and not sum(data.train for data in self._data.values()):
            return "the data have no training row"
        features = max((data.features for data in self._data.values()), default=0)
        self._asked, self.asked = True, now
        self.tables = self._plan.tables(features)
        self._traces.begin(self.tables, {name: key for data in self._data.values() for name, key in data.named.items()})
        self._ask(view)
        return None

    def _ask(self, view: View) -> None:
        self._awaited = set(view.servers)
        for server in view.servers:
            self._create(server, self.resumed.path if self.resumed else None)

    def _create(self, server: int, restore: str | None) -> None:
        self._effects.send(server, m.CreateTables(self.tables, restore, dict(self._traces.keys)))

    def viewed(self, old: View, new: View) -> str | None:
        """There is a new view: servers that are new make their tables, too, and get copies of what is in them. What
        `tables_ready` says.
        """
        if not self._asked:
            return None
        for server in [server for server in new.servers if server not in old.servers]:
            self._create(server, None)
        self._awaited.intersection_update(new.servers)
        return None if self.complete else self._go_on_with_tables(new)

    def tables_ready(self, source: int, message: m.TablesReady, view: View) -> str | None:
        """A server has its tables, or could not read the checkpoint; when no checkpoint is left, why."""
        if self.complete:
            return None
        self._awaited.discard(source)
        if message.error is not None:
            self._errors.append(message.error)
        return self._go_on_with_tables(view)

    def _go_on_with_tables(self, view: View) -> str | None:
        if self._awaited:
            return None
        if not self._errors:
            self.complete = True
            return None
        error, self._errors = self._errors[0], []
        if len(self._resume) < 2:
            return error
        self._resume = self._resume[1:]
        self._effects.log("note", text=f"{error}; going back to {self._resume[0].path}")
        self._ask(view)
        return None
