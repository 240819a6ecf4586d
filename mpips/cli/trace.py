"""`mpips trace`: the last updates of keys, who made them, when, and how much; of a running job also as they come."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import h5py
import msgspec
import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from mpips.cli.asking import AskError, ask, check, how_it_ended
from mpips.cli.screen import screen
from mpips.record import EVENTS
from mpips.scheduler.requests import KeysToTrace
from mpips.trace import Numbers, Share, Trace, Update
from mpips.worker.steps import spelled

NAMES = "names.h5"
PAUSE = 0.2  # seconds between two looks at what is new
SHOWN = 4  # values of a row, at most
SUM = "sum"


class Traced(msgspec.Struct, frozen=True):
    """What is traced of a table: keys; and its rows if it is dense, else None."""

    keys: list[int]
    rows: int | None


class Features:
    """The names that the keys of a run have, if any.

    Parameters
    ----------
    run : the run folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run

    @cached_property
    def names(self) -> list[bytes]:
        """By key; empty where there are none."""
        try:
            with h5py.File(self._run / NAMES) as file:
                return list(file["names"][:].tolist())
        except (OSError, KeyError):
            return []

    def key(self, word: str) -> int:
        """The key that a person means: a number, or the name of a feature.

        Raises
        ------
        AskError
            when there is none of this name.
        """
        if word.isdecimal():
            return int(word)
        try:
            return self.names.index(word.encode(errors="surrogateescape"))
        except ValueError:
            such = f'names are such as "{_text(self.names[0])}"' if self.names else "its features have no names"
            raise AskError(f'{self._run}: no feature "{word}": {such}; or give a key, a whole number') from None

    def name(self, key: int, rows: int | None) -> str:
        """The name of a key of a table with so many rows; "" when it has none."""
        return _text(self.names[key]) if rows is not None and rows == len(self.names) else ""


def trace(
    run: Annotated[Path, typer.Argument(help="The run folder of the job.", metavar="RUN", show_default=False)],
    table: Annotated[
        str | None, typer.Argument(help="A table; by default all.", metavar="TABLE", show_default=False)
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            help='Keys of it, or names of features such as "carrier=UA".', metavar="KEY", show_default=False
        ),
    ] = None,
    last: Annotated[int, typer.Option(help="How many updates to show.", min=0)] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show what comes until the job ends, or Ctrl-C.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Have these keys not traced any more.")] = False,
) -> None:
    """Show the last updates of keys: who, when, how much: mpips trace RUN w 17.

    A running job begins to record updates of the keys named here if it does not yet; tables.NAME.trace in the job file
    has it do so from the start. Without a key shows what is recorded.
    """
    check(run)
    features, traced = Features(run), dict(_traced(run))
    chosen = [features.key(key) for key in keys or ()]
    if stop:
        _stop(run, table, chosen, traced)
        return
    missing = [key for key in chosen if table is None or key not in traced.get(table, Traced([], None)).keys]
    if missing and table is not None and how_it_ended(run) is None:
        ask(run, KeysToTrace(table=table, keys=missing))
        traced = dict(_traced(run))
    record = Trace(run)

    def new() -> list[Update]:
        found = record.new()
        return [each for each in found if table in (None, each.table) and (not chosen or each.key in chosen)]

    shown = Shown(features, traced, with_table=table is None)
    updates = new()
    if updates:
        screen().print(shown.table(updates[len(updates) - min(last, len(updates)) :], len(updates)))
    elif not follow:
        typer.echo(_nothing(run, traced, table))
    if follow:
        _follow(run, new, shown)


def _text(name: bytes) -> str:
    return name.decode(errors="replace")


def _traced(run: Path) -> Iterator[tuple[str, Traced]]:
    """What the job has said to trace, by table; of a table what was said last counts."""
    with (run / EVENTS).open("rb") as file:
        for line in file:
            if b'"trace"' not in line or not line.endswith(b"\n"):
                continue
            event: dict[str, Any] = msgspec.json.decode(line)
            if event["event"] == "trace":
                yield event["table"], Traced(event["keys"], event["rows"])


def _stop(run: Path, table: str | None, keys: Sequence[int], traced: dict[str, Traced]) -> None:
    tables = [table] if table is not None else [name for name, each in traced.items() if each.keys]
    for name in tables:
        ask(run, KeysToTrace(table=name, keys=list(keys or traced.get(name, Traced([], None)).keys), stop=True))


def _nothing(run: Path, traced: dict[str, Traced], table: str | None) -> str:
    if how_it_ended(run) is not None:
        return "no update of these keys is recorded; the job is over: set tables.NAME.trace in the job file before"
    if any(each.keys for name, each in traced.items() if table in (None, name)):
        return "no update of these keys so far: look again, or --follow"
    return "no key is traced: name a table and keys, or set tables.NAME.trace in the job file"


def _follow(run: Path, new: Callable[[], list[Update]], shown: "Shown") -> None:
    """Show updates as they come."""
    try:
        over = False
        while not over:
            over = how_it_ended(run) is not None
            for update in new():
                typer.echo(shown.line(update))
            if not over:
                time.sleep(PAUSE)
    except KeyboardInterrupt:
        return


class Shown:
    """Updates as a person reads them.

    Parameters
    ----------
    features : names of keys.
    traced : of which tables, which have names if there are as many as rows.
    with_table : whether to say which table it is.
    """

    def __init__(self, features: Features, traced: dict[str, Traced], with_table: bool) -> None:
        self._features = features
        self._traced = traced
        self._with_table = with_table

    def _name(self, update: Update) -> str:
        return self._features.name(update.key, self._traced.get(update.table, Traced([], None)).rows)

    def table(self, updates: Sequence[Update], of: int) -> Table:
        """The last ones, of so many that are recorded."""
        shown = Table(title=f"the last {len(updates)} of {of:,} updates", title_justify="left")
        named = any(self._name(update) for update in updates)
        columns = ["time", *["table"] * self._with_table, "key", *["name"] * named]
        for column in [*columns, "server", "worker", "step", "update", "before", "after", "change"]:
            shown.add_column(column, justify="left" if column in ("time", "table", "name", "worker") else "right")
        for update in updates:
            if update.missed:
                shown.add_row(f"… {update.missed:,} not recorded")
            who, what = zip(*_shares(update), strict=True)
            cells = [_clock(update.time), *[escape(update.table)] * self._with_table, str(update.key)]
            cells += [escape(self._name(update))] * named
            cells += [str(update.server), "\n".join(who), spelled(update.step), escape("\n".join(what))]
            shown.add_row(*cells, _numbers(update.before), _numbers(update.after), _change(update))
        return shown

    def line(self, update: Update) -> str:
        """One of them, in a line."""
        missed = f"… {update.missed:,} not recorded\n" if update.missed else ""
        name = self._name(update)
        key = f"{update.table} {update.key}" if self._with_table else str(update.key)
        shares = ", ".join(f"worker {who}: {what}" if who != SUM else f"{SUM} {what}" for who, what in _shares(update))
        values = f"{_numbers(update.before)} → {_numbers(update.after)} ({_change(update)})"
        what = f"{key} {name}".strip()
        return f"{missed}{_clock(update.time)}  {what}  step {spelled(update.step)}  {shares}  {values}"


def _shares(update: Update) -> list[tuple[str, str]]:
    """Who, and what; of several also the sum."""
    shares = [(_who(share), update.function or _numbers(share.update)) for share in update.shares]
    if len(shares) > 1:
        parts = [[np.nan if number is None else number for number in share.update] for share in update.shares]
        shares.append((SUM, _numbers(np.sum(parts, axis=0).tolist())))
    return shares


def _who(share: Share) -> str:
    return str(share.worker) if share.rank == share.worker else f"{share.worker} (rank {share.rank})"


def _clock(seconds: float) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds % 1 * 1000):03d}"


def _numbers(numbers: Numbers, sign: str = "") -> str:
    texts = ["not finite" if number is None else f"{number:{sign}.6g}" for number in numbers[:SHOWN]]
    return " ".join(texts) + " …" * (len(numbers) > SHOWN)


def _change(update: Update) -> str:
    pairs = zip(update.before, update.after, strict=True)
    return _numbers([None if a is None or b is None else b - a for a, b in pairs], "+")
