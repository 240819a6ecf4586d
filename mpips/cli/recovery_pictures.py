"""Recoveries in pictures: marks in a curve over time, and a strip that says what was lost and what took its place."""

from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from mpips.cli.history import History
from mpips.cli.recoveries import AFTERWARDS, Recovery, duration

MOST_ROWS = 8  # of a strip; of more recoveries the rest is summed up
MOST_NUMBERED = 12  # marks of one curve that have room for their numbers
SHADE = 0.12
COLUMNS = (0.0, 0.04, 0.12, 0.28, 0.76, 0.91, 1.0)  # shares of the strip's width: where a text begins, a time ends
LONGEST = 46  # letters of what was done
HEADS = ("", "after", "lost", "what was done", *AFTERWARDS)


class Row(NamedTuple):
    """A line of a strip: a text for each column, and the run that it is of; None for the line that sums up."""

    texts: list[str]
    run: int | None


def mark(axes: Axes, history: History, colour: Any) -> None:
    """Draw a line where a rank was lost, and a shade until nothing was missing any more."""
    numbered = len(history.recoveries) <= MOST_NUMBERED
    for recovery in history.recoveries:
        begin, end = (_seconds(history, recovery, stage) for stage in ("detected", "whole"))
        if begin is None:
            continue
        axes.axvline(begin, color=colour, linewidth=0.8, linestyle=(0, (1.0, 1.5)), gid="recovery")
        if end is not None:
            axes.axvspan(begin, end, color=colour, alpha=SHADE, linewidth=0, gid="recovery")
        if numbered:
            axes.annotate(
                str(recovery.number), (begin, 1.0), (1.5, 0.0), ("data", "axes fraction"), "offset points",
                color=colour, va="top",
            )  # fmt: skip


def rows(histories: Sequence[History]) -> list[Row]:
    """The lines of a strip for all recoveries of some runs; none when there were none."""
    every = [(run, history, recovery) for run, history in enumerate(histories) for recovery in history.recoveries]
    found = [Row(list(_texts(history, recovery)), run) for run, history, recovery in islice(every, MOST_ROWS)]
    if len(every) > MOST_ROWS:
        found.append(Row(_summed([recovery for _, _, recovery in every]), None))
    return found


def draw_rows(axes: Axes, lines: Sequence[Row], colours: Sequence[Any]) -> None:
    """Write the lines below each other, the number of each recovery in the colour of its run."""
    axes.set_axis_off()
    axes.set_title("recoveries")
    axes.set_ylim(len(lines) + 0.5, -0.5)
    axes.set_xlim(0.0, 1.0)
    for line, row in enumerate([Row(list(HEADS), None), *lines]):
        for column, (place, text) in enumerate(zip(COLUMNS, row.texts, strict=True)):
            look: dict[str, Any] = {"ha": "right" if HEADS[column] in AFTERWARDS else "left"}
            if line == 0:
                look["fontweight"] = "bold"
            elif row.run is not None and column == 0:
                look["color"] = colours[row.run]
            axes.text(place, line, text.replace("$", r"\$"), va="center", **look)


def _seconds(history: History, recovery: Recovery, stage: str) -> float | None:
    """When a stage was reached, from where the run's seconds are counted."""
    return max(0.0, recovery.times[stage] - history.began) if stage in recovery.times else None


def _texts(history: History, recovery: Recovery) -> Iterator[str]:
    begin = _seconds(history, recovery, "detected")
    yield str(recovery.number)
    yield "" if begin is None else f"{begin:,.1f} s"
    yield f"{recovery.role} {recovery.rank}"
    yield recovery.text if len(recovery.text) <= LONGEST else recovery.text[: LONGEST - 1] + "…"
    for stage in AFTERWARDS:
        seconds = recovery.after(stage)
        yield "–" if seconds is None else duration(seconds)


def _summed(recoveries: Sequence[Recovery]) -> list[str]:
    """The line below the first few: what is typical of all."""
    medians = []
    for stage in AFTERWARDS:
        times = [seconds for recovery in recoveries if (seconds := recovery.after(stage)) is not None]
        medians.append(duration(median(times)) if times else "–")
    return ["…", "", f"{len(recoveries)} in all", "median of all", *medians]
