"""Pictures of runs: one figure with a panel for each quantity. Drawn in memory, so no display is needed."""

import math
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mpips.cli import recovery_pictures
from mpips.cli.history import Curve, History
from mpips.cli.progress import shown
from mpips.errors import Error

# Paul Tol's "muted" scheme, https://sronpersonalpages.nl/~pault/: distinct in all kinds of colour vision
COLOURS = ("#332288", "#CC6677", "#44AA99", "#882255", "#999933", "#88CCEE", "#117733", "#AA4499", "#DDCC77")
INK = "#333333"
Colour = str | tuple[float, float, float, float]
Pattern = str | tuple[float, tuple[float, ...]]
PATTERNS: tuple[tuple[str, Pattern], ...] = (("solid", "-"), ("dashed", (0, (3.0, 1.5))))  # of a quantity's parts
PANEL = (3.6, 2.0)  # inches: two columns are as wide as a page's text
LINE = 0.2  # inches that a line above the panels takes
DOTS_PER_INCH = 200
FEW = 40  # points that are drawn one by one
MOST_SAMPLES = 300  # of a noisy curve
FEWEST_GAPS = 5  # values of an objective that can be called converging
DECADES = 100.0  # times that its distance from the best, or a loss, has become smaller, for a logarithmic axis
NEAR = 0.1  # ends of two curves, as a share of the panel's height
HEADROOM = 1.12  # for the numbers of marks above a curve
ROUND = [1, 2, 5, 10]  # steps between ticks
MOST_LABELLED = 3  # runs whose bars have room for figures
MOST_CLASSES = 15  # that a picture of confusions has room for

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.xmargin": 0,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "legend.frameon": False,
    "svg.hashsalt": "mpips",  # the same runs give the same file
}


class PictureError(Error, OSError):
    """The picture can't be written."""


class Panel(NamedTuple):
    """A quantity over time.

    Attributes
    ----------
    title : with the unit.
    parts : the curves of a run, by name.
    finish : gives the axes their scale and ticks.
    steps : whether a value holds until the next.
    marks : whether recoveries are marked.
    """

    title: str
    parts: Callable[[History], dict[str, Curve]]
    finish: Callable[[Axes], None]
    steps: bool = False
    marks: bool = False

    def has_data(self, histories: Sequence[History]) -> bool:
        """Whether there is a curve to draw."""
        return any(curve.values for history in histories for curve in self.parts(history).values())

    def draw(self, axes: Axes, histories: Sequence[History], colours: Sequence[Colour]) -> None:
        """Draw the curves of all runs, a part in the same line style everywhere."""
        styles: dict[str, str] = {}
        ends: list[tuple[str, Curve]] = []
        for history, colour in zip(histories, colours, strict=True):
            for (part, curve), (style, pattern) in zip(self.parts(history).items(), PATTERNS, strict=False):
                if curve.values:
                    styles[part] = style
                    ends.append((part, curve))
                    axes.plot(
                        *curve,
                        color=colour,
                        linestyle=pattern,
                        marker="o" if len(curve.values) <= FEW else "",
                        clip_on=False,
                        zorder=3,  # over the axis, where a value is 0
                        drawstyle="steps-post" if self.steps else "default",
                    )
            if self.marks:
                recovery_pictures.mark(axes, history, colour)
        self.finish(axes)
        axes.set_title(self.title)
        if len(styles) > 1 and len(histories) == 1:
            _label_ends(axes, ends, colours[0])
        elif len(styles) > 1:
            axes.set_title(f"{self.title}: " + ", ".join(f"{part} {style}" for part, style in styles.items()))


def figure(histories: Sequence[History]) -> Figure:
    """Draw runs.

    Parameters
    ----------
    histories : runs with something to draw, one or more.

    Returns
    -------
    Figure
        a panel for each quantity that any of the runs has; several runs have their curves laid over each other.
    """
    with rc_context(STYLE):
        panels = [panel.draw for panel in _panels(histories) if panel.has_data(histories)]
        saved = [_draw_saved] * any(history.saved for history in histories)
        saved += [_draw_confusion] * (len(histories) == 1 and 1 < len(histories[0].confusion) <= MOST_CLASSES)
        picture = Figure(layout="constrained")
        colours = _colours(len(histories))
        rows = recovery_pictures.rows(histories)
        grid, strip = _grid(picture, len(panels) + len(saved), len(rows))
        for axes, draw in zip(grid, [*panels, *saved], strict=True):
            draw(axes, histories, colours)
        if strip is not None:
            recovery_pictures.draw_rows(strip, rows, colours)
        _share_time(grid[: len(panels)])
        _head(picture, histories, colours)
    return picture


def save(picture: Figure, folder: Path, name: str = "plot") -> list[Path]:
    """Write the figure as plot.png and plot.svg, or by another name; the paths.

    Raises
    ------
    PictureError
        when the folder can't be made or written.
    """
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        content = BytesIO()
        with rc_context(STYLE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of labels too long for the layout: there is a picture still
            if path.suffix == ".svg":
                picture.savefig(content, format="svg", metadata={"Date": None})
            else:
                picture.savefig(content, format="png", dpi=DOTS_PER_INCH)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.getvalue())
        except OSError as error:
            raise PictureError(f"{path}: can't be written: {error.strerror}: choose a folder by --out") from error
    return paths


def _panels(histories: Sequence[History]) -> list[Panel]:
    return [
        _objective(histories),
        _loss(histories),
        Panel("test rows taken for another class", lambda run: {"wrong": run.wrong}, _share),
        Panel("examples per second", lambda run: {"all": _smoothed(run.throughput)}, _count, marks=True),
        _delay(histories),
        Panel("bytes sent", _sent, _bytes),
        Panel("time that workers wait", lambda run: {"idle": _smoothed(run.idle)}, _share),
        Panel("features not filtered out", lambda run: {"active": run.active}, _share),
    ]


def _loss(histories: Sequence[History]) -> Panel:
    """The loss; logarithmic when it falls to a small part."""
    values = [value for run in histories for curve in _losses(run).values() for value in curve.values]
    falls = bool(values) and 0.0 < min(values) < max(values) / DECADES < math.inf
    return Panel("loss", _losses, _logarithmic if falls else _linear)


def _losses(run: History) -> dict[str, Curve]:
    return {} if run.objective.values else {"training": _smoothed(run.training), "test": run.test}


def _sent(run: History) -> dict[str, Curve]:
    curves = {"workers": run.sent_by_workers, "servers": run.sent_by_servers}
    return curves if any(any(curve.values) for curve in curves.values()) else {}  # on one node there is nothing


def _smoothed(curve: Curve) -> Curve:
    """A noisy curve of a long run as means over equally many samples each, so that runs can be told apart."""
    size = math.ceil(len(curve.values) / MOST_SAMPLES)
    if size <= 1:
        return curve
    starts = range(0, len(curve.values), size)
    return Curve(*([fmean(column[i : i + size]) for i in starts] for column in curve))


def _objective(histories: Sequence[History]) -> Panel:
    """The objective; when it converges, its distance from the best value of all runs, logarithmic."""
    values = [value for history in histories for value in history.objective.values]
    best = min(values, default=0.0)
    gaps = sorted({value - best for value in values})
    if len(gaps) < FEWEST_GAPS or gaps[-1] < DECADES * gaps[1]:
        return Panel("objective", lambda run: {"objective": run.objective}, _linear)

    def gap(run: History) -> dict[str, Curve]:
        # the best value itself has no place on a logarithmic axis
        points = [(time, value - best) for time, value in zip(*run.objective, strict=True) if value > best]
        return {"objective": Curve([time for time, _ in points], [value for _, value in points])}

    return Panel(f"objective above the best ({best:.6g})", gap, _logarithmic)


def _delay(histories: Sequence[History]) -> Panel:
    """The delay; no bound is a line of its own above all others, marked ∞."""
    values = [value for history in histories for value in history.delay.values]
    highest = max((value for value in values if value < math.inf), default=0.0)
    ceiling = 1.25 * highest + 1.0

    def bounded(run: History) -> dict[str, Curve]:
        return {"delay": Curve(run.delay.seconds, [min(value, ceiling) for value in run.delay.values])}

    def finish(axes: Axes) -> None:
        ticks = [tick for tick in MaxNLocator(4, integer=True).tick_values(0.0, highest) if 0.0 <= tick <= highest]
        labels = [f"{tick:,.0f}" for tick in ticks]
        unbounded = math.inf in values
        axes.set_yticks([*ticks, *[ceiling] * unbounded], [*labels, *["∞"] * unbounded])
        axes.set_ylim(0.0, 1.05 * (ceiling if unbounded else max(1.0, highest)))

    return Panel("delay (iterations)", bounded, finish, steps=True)


def _linear(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())


def _bytes(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    axes.yaxis.set_major_formatter(EngFormatter("B"))
    axes.set_ylim(bottom=0.0)


def _count(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.set_ylim(0.0, HEADROOM * axes.get_ylim()[1])


def _share(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    axes.set_ylim(bottom=0.0)


def _label_ends(axes: Axes, ends: Sequence[tuple[str, Curve]], colour: Colour) -> None:
    """Name two curves at the right edge, where they end; the names of near ones keep apart."""
    (below, low), (above, high) = sorted((curve.values[-1], part) for part, curve in ends)
    bottom, top, first, second = axes.yaxis.get_transform().transform([*axes.get_ylim(), below, above])
    near = second - first < NEAR * (top - bottom)
    for end, part, side in ((below, low, "top"), (above, high, "bottom")):
        place = axes.get_yaxis_transform()
        axes.text(1.015, end, part, color=colour, transform=place, va=side if near else "center")


def _share_time(panels: Sequence[Axes]) -> None:
    """One axis of time for all; the lowest panel of each column says what it is."""
    latest = max((axes.dataLim.x1 for axes in panels), default=0.0)
    for axes in panels:
        axes.set_xlim(0.0, latest or 1.0)
    for axes in panels[-2:]:
        axes.set_xlabel("seconds since training began")


def _draw_saved(axes: Axes, histories: Sequence[History], colours: Sequence[Colour]) -> None:
    """Bars of the bytes that each filter saved, the largest first, a run's bar below the other's."""
    runs = [(history, colour) for history, colour in zip(histories, colours, strict=True) if history.saved]
    total: Counter[str] = Counter()
    for history, _ in runs:
        total.update(history.saved)
    names = [name for name, _ in total.most_common()]
    thickness = 0.8 / len(runs)
    for place, (history, colour) in enumerate(runs):
        middle = (place - (len(runs) - 1) / 2) * thickness
        values = [history.saved.get(name, 0.0) for name in names]
        bars = axes.barh([i + middle for i in range(len(names))], values, height=0.9 * thickness, color=colour)
        if len(runs) <= MOST_LABELLED:
            shares = [f" ({value / history.raw:.0%})" if history.raw else "" for value in values]
            labels = [_amount(value) + share if value else "" for value, share in zip(values, shares, strict=True)]
            axes.bar_label(bars, labels, padding=3)
            axes.margins(x=0.35)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter(EngFormatter("B"))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    of = f", of {_amount(runs[0][0].raw)} in all" if len(runs) == 1 and runs[0][0].raw else ""
    axes.set_title(f"bytes saved by filters{of}")


def _draw_confusion(axes: Axes, histories: Sequence[History], colours: Sequence[Colour]) -> None:
    """How often a class (a row, with the share of it that is wrong) is taken for which (a column)."""
    counts = histories[0].confusion
    wrong = [[math.nan if i == j else count for j, count in enumerate(row)] for i, row in enumerate(counts)]
    most = max((count for i, row in enumerate(counts) for j, count in enumerate(row) if i != j), default=0) or 1
    axes.imshow(wrong, cmap="Purples", vmin=0, vmax=1.3 * most, aspect="auto")
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            if i == j or count:
                colour = "#999999" if i == j else "white" if count > 0.7 * most else INK
                axes.text(j, i, f"{count:,}", ha="center", va="center", fontsize=6, color=colour)
    shares = [1.0 - row[i] / sum(row) if sum(row) else 0.0 for i, row in enumerate(counts)]
    axes.set_xticks(range(len(counts)))
    axes.set_yticks(range(len(counts)), [f"{i}   {share:.1%}" for i, share in enumerate(shares)])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title("classes, what is wrong of them, and taken for")


def _amount(size: float) -> str:
    return str(EngFormatter("B")(float(f"{size:.3g}")))


def _head(picture: Figure, histories: Sequence[History], colours: Sequence[Colour]) -> None:
    """The runs' names and final figures above the panels: a title, or for several runs a legend."""
    titles = [textwrap.fill(plain(" · ".join([history.name, *_figures(history)])), 100) for history in histories]
    picture.set_figheight(picture.get_figheight() + LINE * sum(1 + title.count("\n") for title in titles))
    if len(histories) == 1:
        picture.suptitle(titles[0], x=0.01, ha="left", fontsize=9)
        return
    lines = [Line2D([], [], color=colour) for colour in colours]
    legend = picture.legend(lines, ["" for _ in lines], loc="outside upper left", fontsize=9)
    for text, title in zip(legend.get_texts(), titles, strict=True):
        text.set_text(title)  # given as labels, names that begin with "_" would be left out


def _figures(history: History) -> Iterator[str]:
    if history.exit not in ("", "finished"):
        yield history.exit
    for name, value in history.metrics.items():
        yield f"{name} {shown(value)}"
    if history.duration is not None:
        yield f"{history.duration:,.1f} s"


def plain(text: str) -> str:
    r"""A text in which "$" does not begin a formula."""
    return text.replace("$", r"\$")


def _colours(count: int) -> list[Colour]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [colormaps["cividis"](place / count) for place in range(count)]


def _grid(picture: Figure, count: int, lines: int) -> tuple[list[Axes], Axes | None]:
    """Axes in two columns, of an odd number the first with a row to itself; and below them all some for lines of text,
    when there are any.
    """
    rows = (count + 1) // 2
    width, height = PANEL
    heights = [height] * rows + [LINE * (lines + 1.5)] * bool(lines)
    picture.set_size_inches(2 * width, sum(heights))
    cells = picture.add_gridspec(len(heights), 2, height_ratios=heights)
    wide = [picture.add_subplot(cells[0, :])] if count % 2 else []
    panels = wide + [picture.add_subplot(cells[place // 2, place % 2]) for place in range(count % 2 * 2, 2 * rows)]
    return panels, picture.add_subplot(cells[rows, :]) if lines else None
