"""How a run went, read back from the files in its run folder: curves over time, the final figures, bytes saved."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from mpips.cli.recoveries import Recoveries, Recovery
from mpips.errors import Error
from mpips.record import EVENTS, RESULT

SMALLEST, LARGEST = 1e-30, 1e30  # what is beyond is no measurement, and would overflow the axes


class HistoryError(Error, OSError):
    """A folder is no run folder, or holds nothing about a run."""


class Curve(NamedTuple):
    """A quantity over time: seconds since the start, and the values."""

    seconds: list[float]
    values: list[float]

    def add(self, seconds: float, value: Any) -> None:
        """Append a value; what is no finite number is left out."""
        if _is_number(value):
            self.seconds.append(seconds)
            self.values.append(float(value))


def _curve() -> Curve:
    return Curve([], [])


@dataclass
class History:
    """One run.

    Attributes
    ----------
    name : what people call it: the folder's name, unless another run has the same.
    began : Unix time from which seconds are counted.
    objective, training, test : a batch solver's objective; mean losses of training rows and of test rows.
    wrong : share of the test rows that are taken for another class, 0 to 1.
    throughput : examples per second.
    delay : iterations that a worker may run ahead, ∞ without a bound.
    sent_by_workers, sent_by_servers : bytes on the wire since the start.
    idle : share of their time that the workers waited, 0 to 1.
    active : share of the features that no filter holds back, 0 to 1.
    confusion : of the last evaluation, how many rows of each class (a row) are taken for which (a column).
    saved : bytes that each filter saved, by its name.
    raw : bytes that would have been sent without filters, 0 when unknown.
    metrics : the final figures, by name.
    exit : "finished", "interrupted", "failed", or "" when there is no result (yet).
    duration : seconds that the run took, or None.
    recoveries : what was lost and made up for.
    remarks : what a person should know about the files, a sentence each.
    """

    name: str
    began: float = 0.0
    objective: Curve = field(default_factory=_curve)
    training: Curve = field(default_factory=_curve)
    test: Curve = field(default_factory=_curve)
    wrong: Curve = field(default_factory=_curve)
    throughput: Curve = field(default_factory=_curve)
    delay: Curve = field(default_factory=_curve)
    sent_by_workers: Curve = field(default_factory=_curve)
    sent_by_servers: Curve = field(default_factory=_curve)
    idle: Curve = field(default_factory=_curve)
    active: Curve = field(default_factory=_curve)
    confusion: list[list[int]] = field(default_factory=list)
    saved: dict[str, float] = field(default_factory=dict)
    raw: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    exit: str = ""
    duration: float | None = None
    recoveries: list[Recovery] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.saved and not any(value.values for value in vars(self).values() if isinstance(value, Curve))


def read(folder: Path, name: str) -> History:
    """Read a run's history.

    Parameters
    ----------
    folder : the run folder.
    name : what to call the run.

    Raises
    ------
    HistoryError
        when the folder or its log of events can't be read.
    """
    history = History(name)
    _read_events(history, folder)
    _read_result(history, folder)
    return history


def _read_events(history: History, folder: Path) -> None:
    epochs, recoveries = _curve(), Recoveries()
    start = None
    for event in _events(history, folder):
        if start is None or event.get("event") == "training":
            start = history.began = event["time"]
        seconds = max(0.0, event["time"] - start)
        recoveries.take(event)
        match event.get("event"):
            case "progress":
                _add_progress(history, seconds, event)
            case "epoch":
                epochs.add(seconds, event.get("loss"))
            case "evaluation":
                history.test.add(seconds, event.get("logloss"))
                if _is_number(event.get("accuracy")):
                    history.wrong.add(seconds, 1.0 - event["accuracy"])
                if _is_confusion(event.get("confusion")):
                    history.confusion = event["confusion"]
            case "report":
                history.objective.add(seconds, event.get("objective"))
                history.active.add(seconds, event.get("active"))
    if len(epochs.values) > len(history.training.values):  # a short run has more epochs than reports of progress
        history.training = epochs
    history.recoveries = recoveries.all()


def _add_progress(history: History, seconds: float, event: dict[str, Any]) -> None:
    history.training.add(seconds, event.get("loss"))
    history.throughput.add(seconds, event.get("examples_per_second"))
    history.idle.add(seconds, event.get("idle"))
    if event.get("delay", "") is None:
        history.delay.seconds.append(seconds)
        history.delay.values.append(math.inf)
    history.delay.add(seconds, event.get("delay"))
    sent = _object(event, "sent")
    history.sent_by_workers.add(seconds, sent.get("workers"))
    history.sent_by_servers.add(seconds, sent.get("servers"))


def _events(history: History, folder: Path) -> Iterator[dict[str, Any]]:
    """The events of the log; a last line that is still being written is left for later."""
    broken = total = 0
    for line in _bytes(folder).splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        total += 1
        event = _parsed(line)
        if _is_number(event.get("time")):
            yield event
        else:
            broken += 1
    if broken:
        history.remarks.append(f"{folder / EVENTS}: left out {broken:,} of {total:,} lines: not events of mpips")


def _bytes(folder: Path) -> bytes:
    path = folder / EVENTS
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if folder.exists():
            reason = f"no {EVENTS} in this folder: choose the run folder that a job file's checkpoint.folder names"
        else:
            reason = "no such run folder"
        raise HistoryError(f"{folder}: {reason}") from None
    except NotADirectoryError:
        raise HistoryError(f"{folder}: a file: choose the run folder that it is in") from None
    except OSError as error:
        raise HistoryError(f"{path}: can't be read: {error.strerror}") from error


def _read_result(history: History, folder: Path) -> None:
    path = folder / RESULT
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        history.remarks.append(f"{path}: can't be read: {error.strerror}: drawn without the final figures")
        return
    result = _parsed(content)
    if not result:
        history.remarks.append(f"{path}: not a result of mpips: drawn without the final figures")
        return
    history.exit = str(result.get("exit", ""))
    history.metrics = {name: value for name, value in _object(result, "metrics").items() if _is_number(value)}
    history.duration = result["seconds"] if _is_number(result.get("seconds")) else None
    traffic = _object(result, "traffic")
    history.saved = {name: float(value) for name, value in _object(traffic, "filters").items() if _is_number(value)}
    raw = [_object(traffic, role).get("raw") for role in ("workers", "servers")]
    history.raw = float(sum(value for value in raw if _is_number(value)))


def _parsed(text: bytes) -> dict[str, Any]:
    """A JSON object, empty when the text is none. NaN, which a diverged run logs, passes."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _object(event: dict[str, Any], name: str) -> dict[str, Any]:
    value = event.get(name)
    return value if isinstance(value, dict) else {}


def _is_confusion(value: Any) -> TypeGuard[list[list[int]]]:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == len(value) and all(isinstance(count, int) for count in row)
        for row in value
    )


def _is_number(value: Any) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return value == 0 or SMALLEST <= abs(value) <= LARGEST
