"""The progress of a job, from its `metrics.jsonl`: one live line on a terminal, else a plain line now and then."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mpips.cli.recoveries import Event, Recoveries, Recovery, duration

PLAIN_EVERY = 2.0
SPEED_OVER = 10.0  # seconds; workers report whole tasks, and so the speed of one second jumps
OF_EVERY_LINE = ("time", "event", "number")
MOST_CLASSES = 4  # whose errors are told at the end


class Metrics:
    """Reads the events that a job appends to its `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new(self) -> Iterator[Event]:
        """Yield the events since the last call; a line that is not complete yet waits for the next."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._at += len(line)
                    try:
                        event = msgspec.json.decode(line)
                    except msgspec.DecodeError:
                        continue
                    if isinstance(event, dict):
                        yield event
        except FileNotFoundError:
            return


class Speed:
    """Examples per second over the last seconds of a job."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, event: Event) -> float:
        """The speed when a progress event was logged; 0: not known yet."""
        own = float(event.get("examples_per_second") or 0.0)
        if event.get("time") is None or event.get("examples") is None:
            return own
        now, examples = event["time"], event["examples"]
        if not examples or (self._seen and examples < self._seen[-1][1]):  # it has not begun, or begins anew
            self._seen.clear()
        self._seen.append((now, examples))
        while self._seen[0][0] < now - SPEED_OVER:
            self._seen.popleft()
        since, before = self._seen[0]
        return (examples - before) / (now - since) if now > since else own


class Progress:
    """Shows events and the ranks' own output. A context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._spinner = Spinner("dots", text="starting")
        live = Live(self._spinner, console=console, transient=True, refresh_per_second=8)
        self._live = live if console.is_terminal else None
        self._next_line = 0.0
        self._speed = Speed()
        self._recoveries = Recoveries()
        self._open: dict[int, Recovery] = {}
        self._announced: set[int] = set()

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        for recovery in self._open.values():
            self.say(str(recovery))
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stage(self, text: str) -> None:
        """Say what goes on now, on the live line or on one of its own."""
        if self._live is not None:
            self._spinner.update(text=escape(text))
        else:
            self.say(text)

    def show_all(self, events: Iterable[Event]) -> None:
        """Show events of the job: a loss that is being recovered from only once, and a recovery as far as it is."""
        events = list(events)
        recovering = {event.get("rank") for event in events if event.get("event") == "recovery"}
        for event in events:
            if event.get("event") != "lost" or event.get("rank") not in recovering:
                self.show(event)
        self._show_recoveries()

    def show(self, event: Event) -> None:
        """Show an event of the job."""
        if event.get("event") in ("progress", "epoch", "report"):
            now = time.monotonic()
            speed = self._speed.at(event)
            if self._live is not None or now >= self._next_line:
                self._next_line = now + PLAIN_EVERY
                self.stage(_pass(event) if event.get("event") == "report" else _progress(event, speed))
            return
        if event.get("event") == "stopping":
            self.stage(f"stopping: {event.get('reason')}")
            return
        recovery = self._recoveries.take(event)
        if recovery is not None:
            self._recovering(recovery)
            return
        text = _describe(event)
        if text:
            self.say(text)

    def _recovering(self, recovery: Recovery) -> None:
        """A recovery that is whole has a line."""
        if not recovery.is_whole:
            self._open[recovery.number] = recovery
        elif self._open.pop(recovery.number, None) is not None:
            self.say(str(recovery))

    def _show_recoveries(self) -> None:
        """Show those under way: below the live line as they go, else when something is done about them."""
        if self._live is not None:
            self._live.update(Group(self._spinner, *(Text(f"  {recovery}") for recovery in self._open.values())))
            return
        for recovery in self._open.values():
            if recovery.text and recovery.number not in self._announced:
                self._announced.add(recovery.number)
                self.say(str(recovery))


def _progress(event: Event, speed: float) -> str:
    of = f"/{event['epochs']}" if "epochs" in event else " done"
    parts = [f"epoch {event.get('epoch', 0)}{of}", f"{event.get('examples', 0):,} examples"]
    if speed:
        parts.append(f"{_thousands(speed)} examples/s")
    if event.get("loss") is not None:
        parts.append(f"loss {event['loss']:.4f}")
    loads = list((event.get("servers") or {}).values())
    if loads:
        parts.append("servers " + " ".join(f"{load:.0%}" for load in loads[:8]) + (" …" if len(loads) > 8 else ""))
    if event.get("delay") is not None:
        parts.append(f"delay {event['delay']}")
    return " · ".join(parts)


def _pass(event: Event) -> str:
    figures = {name: value for name, value in event.items() if name not in (*OF_EVERY_LINE, "pass")}
    return f"pass {event.get('pass', 0):.0f} · {_metrics(figures)}"


def _describe(event: Event) -> str | None:
    match event.get("event"):
        case "start":
            return f"started: {event.get('ranks', '?')} ranks"
        case "evaluation":
            return f"epoch {event.get('epoch', '?')}: {_metrics(event, (*OF_EVERY_LINE, 'epoch'))}"
        case "checkpoint":
            return f"checkpoint: generation {event.get('generation')} in {event.get('seconds', 0):.1f} s"
        case "checkpoint failed":
            return f"checkpoint failed: {event.get('error')}"
        case "lost":
            return f"lost rank {event.get('rank')}, a {event.get('role')}"
        case "note":
            return str(event.get("text", ""))
        case _:
            return None


def _metrics(values: Event, without: tuple[str, ...] = ()) -> str:
    return " · ".join(
        f"{name} {shown(value)}"
        for name, value in values.items()
        if name not in without and not isinstance(value, list)
    )


def shown(value: Any) -> str:
    """A number as people read it: few digits, thousands apart."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _thousands(value: float) -> str:
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.2f}{unit}"
    return f"{value:.0f}"


def _bytes(count: float) -> str:
    return f"{_thousands(count)}B" if count >= 1e3 else f"{count:.0f} B"


def summary(result: dict[str, Any], folder: Path) -> Table:
    """The short table at the end of a job, from its `result.json`."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("exit", escape(str(result.get("exit"))))
    for name, value in (result.get("metrics") or {}).items():
        if isinstance(value, list):
            table.add_row("errors", escape(errors_by_class(value)))
        else:
            table.add_row(escape(name), escape(shown(value)))
    if result.get("seconds") is not None:
        table.add_row("seconds", f"{result['seconds']:.1f}")
    if result.get("examples_per_second"):
        table.add_row("examples/s", f"{_thousands(result['examples_per_second'])}")
    for side, count in (result.get("traffic") or {}).items():
        if side != "filters" and count.get("sent"):
            without = f" ({_bytes(count['raw'])} without filters)" if count["raw"] > count["sent"] else ""
            table.add_row(f"{side} sent", f"{_bytes(count['sent'])}{without}")
    saved = (result.get("traffic") or {}).get("filters") or {}
    if saved:
        table.add_row("saved by", escape(", ".join(f"{name} {_bytes(count)}" for name, count in saved.items())))
    if result.get("recoveries"):
        table.add_row("recoveries", escape(_recovered(result["recoveries"])))
    roles = result.get("roles") or {}
    if roles:
        table.add_row("roles", escape(", ".join(_counted(role, count) for role, count in roles.items() if count)))
    table.add_row("run folder", escape(str(folder)))
    return table


def errors_by_class(confusion: list[list[int]]) -> str:
    """Of each class the share that is taken for another, the worst first, as far as there is room."""
    rows = [(sum(row), sum(row) - row[label]) for label, row in enumerate(confusion)]
    shares = sorted(((wrong / of, label) for label, (of, wrong) in enumerate(rows) if of), reverse=True)
    named = [f"{share:.2%} of class {label}" for share, label in shares[:MOST_CLASSES]]
    return ", ".join(named) + (" …" if len(shares) > MOST_CLASSES else "")


def _recovered(recoveries: list[dict[str, Any]]) -> str:
    """How many recoveries there were, of which roles, and how long they took."""
    roles = Counter(str(recovery.get("role", "rank")) for recovery in recoveries)
    named = ", ".join(f"{count} {role}{'s' * (count > 1)}" for role, count in roles.items())
    times = [recovery["whole"] for recovery in recoveries if recovery.get("whole") is not None]
    took = f"whole after {duration(max(times))} at most" if times else ""
    missing = f"{len(recoveries) - len(times)} not whole" if len(times) < len(recoveries) else ""
    return f"{len(recoveries)}: " + "; ".join(part for part in (named, took, missing) if part)


def _counted(role: str, count: int) -> str:
    name = role.replace("_", " ")
    return f"{count} {name.removesuffix('s') if count == 1 else name}"
