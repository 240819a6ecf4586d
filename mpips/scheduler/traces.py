"""The keys whose updates servers record: those of the plan, and what somebody asks for while the job runs. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from mpips.messages import Trace
from mpips.plan import Plan
from mpips.scheduler.effects import Effects
from mpips.table import TableSpec

MOST = 1000  # keys of a table
KEYS = 2**64


class Traces:
    """What is traced.

    Parameters
    ----------
    plan : the job.
    effects : takes messages, events and answers.

    Attributes
    ----------
    keys : by table, ascending; a list is never changed, but replaced.
    """

    def __init__(self, plan: Plan, effects: Effects) -> None:
        self.keys: dict[str, list[int]] = {}
        self._planned = plan.trace
        self._records = plan.run is not None
        self._effects = effects
        self._tables: dict[str, TableSpec] = {}
        self._asked: set[str] = set()

    def begin(self, tables: Iterable[TableSpec], named: Mapping[str, int]) -> None:
        """The tables are known, and the keys of the features that the plan names."""
        self._tables = {table.name: table for table in tables}
        for name, wanted in self._planned.items() if self._records else ():
            keys = [named.get(key) if isinstance(key, str) else key for key in wanted]
            problem = self._problem(name, [key for key in keys if key is not None])
            unknown = [str(name) for name, key in zip(wanted, keys, strict=True) if key is None]
            if unknown:
                problem = f"the data have no feature {', '.join(unknown)}"
            if problem is not None:
                self._effects.log("note", text=f'table "{name}": some of its keys are not traced: {problem}')
            if name not in self._tables:
                continue
            good = [key for key in keys if key is not None and self._problem(name, [key]) is None]
            self._set(name, good[:MOST])

    def ask(self, name: str, table: str, keys: Sequence[int], stop: bool, servers: Iterable[int]) -> None:
        """Somebody asks, under a name, to trace keys, or no longer; a name counts once. All servers are told."""
        if name in self._asked:
            return
        self._asked.add(name)
        known = self.keys.get(table, [])
        wanted = set(known) - set(keys) if stop else {*known, *keys}
        problem = self._problem(table, keys) or self._problem(table, list(wanted))
        if problem is not None:
            self._effects.answer(name, "refused", problem)
            return
        self._set(table, wanted)
        for server in servers:
            self._effects.send(server, Trace(dict(self.keys)))
        count = len(self.keys[table])
        is_traced = "key is traced" if count == 1 else "keys are traced"
        self._effects.answer(name, "done", f'table "{table}": {count or "no"} {is_traced} now')

    def _set(self, table: str, keys: Iterable[int]) -> None:
        self.keys[table] = sorted(set(keys))
        spec = self._tables[table]
        self._effects.log("trace", table=table, keys=self.keys[table], rows=spec.rows if spec.kind == "dense" else None)

    def _problem(self, table: str, keys: Sequence[int]) -> str | None:
        """Why keys can't be traced."""
        if not self._tables:
            return "there are no tables yet"
        if table not in self._tables:
            return f'there is no table "{table}"; there are: {", ".join(self._tables)}'
        spec = self._tables[table]
        limit = spec.rows if spec.kind == "dense" else KEYS
        wrong = [key for key in keys if not 0 <= key < limit]
        if wrong:
            return f'table "{table}" has keys from 0 to {limit - 1}, not {", ".join(map(str, wrong))}'
        return f"more than {MOST} keys of a table" if len(keys) > MOST else None
