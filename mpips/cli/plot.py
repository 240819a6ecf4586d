"""`mpips plot`: pictures of how runs went. Needs no MPI and no display."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from mpips.checkpoint import Generation
from mpips.cli.history import History, HistoryError, read
from mpips.cli.inspect import master
from mpips.cli.progress import shown
from mpips.cli.screen import screen
from mpips.errors import Error


def plot(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the picture; by default the run folder, or for several runs the current one."),
    ] = None,
) -> None:
    """Draw how a run went, or how several compare: loss, delay, bytes and idle time, as plot.png and plot.svg.

    Of several runs a table is shown, too; of a run that has trained a network, the test images that it takes for
    another class are drawn as wrong.png and wrong.svg.
    """
    folders = list({folder.resolve(): folder for folder in runs}.values())
    histories = [read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    for folder, history in zip(folders, histories, strict=True):
        if history.is_empty:
            history.remarks.append(f"{folder}: nothing to draw: no loss, delay, bytes or idle time was logged (yet)")
        elif not history.exit:
            history.remarks.append(f"{folder}: under way, or ended by force: drawn so far, without the final figures")
    remarks = [remark for history in histories for remark in history.remarks]
    drawn = [history for history in histories if not history.is_empty]
    if not drawn:
        raise HistoryError("\n".join(remarks))
    for remark in remarks:
        typer.echo(f"mpips: {remark}", err=True)

    from mpips.cli.pictures import figure, save  # matplotlib takes half a second to import

    target = out or (folders[0] if len(folders) == 1 else Path())
    for path in save(figure(drawn), target):
        typer.echo(f"wrote {path}")
    if len(histories) > 1:
        screen().print(_table(histories))
    elif histories[0].confusion or "accuracy" in histories[0].metrics:
        _draw_wrong(folders[0], histories[0].name, target)


def _draw_wrong(folder: Path, name: str, target: Path) -> None:
    """Draw the test images that the newest generation takes for another class, if they are still there."""
    from mpips.algorithms.neural.trained import Trained
    from mpips.cli.pictures import save
    from mpips.cli.wrong_pictures import figure

    try:
        with Generation(master(folder, None)) as generation:
            network = Trained(generation)
        wrong = network.wrong()
    except Error as error:
        typer.echo(f"mpips: {error}: the images that are taken for another class are not drawn", err=True)
        return
    for path in save(figure(name, wrong, network.classes, ink=network.format == "idx"), target, "wrong"):
        typer.echo(f"wrote {path}")


def _table(histories: Sequence[History]) -> Table:
    """A line for each run: how it ended, its final figures, its time and mean speed."""
    metrics = list(dict.fromkeys(name for history in histories for name in history.metrics))
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold")
    for column in ("exit", *metrics, "seconds", "examples/s"):
        table.add_column(escape(column), justify="left" if column == "exit" else "right")
    for history in histories:
        figures = [escape(shown(history.metrics[name])) if name in history.metrics else "" for name in metrics]
        seconds = "" if history.duration is None else f"{history.duration:,.1f}"
        speeds = history.throughput.values
        speed = f"{fmean(speeds):,.0f}" if speeds else ""
        table.add_row(escape(history.name), history.exit or "under way", *figures, seconds, speed)
    return table


def _names(folders: Sequence[Path]) -> list[str]:
    """What to call the runs: by their folders' names, or by their paths where names are the same."""
    names = [folder.resolve().name for folder in folders]
    count = Counter(names)
    return [name if name and count[name] == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]
