"""`mpips inspect`: what is in a checkpoint, on the screen or as a table's values in a file. Needs no MPI."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpips.checkpoint import CheckpointError, Generation, generations
from mpips.cli.compare import Difference, differences, largest
from mpips.cli.export import export as write
from mpips.cli.screen import screen as standard_output
from mpips.table import TableSpec

BAR = 24  # characters of the longest


def inspect(
    path: Annotated[Path, typer.Argument(help="A run folder, or one generation's master file.", metavar="RUN")],
    table: Annotated[str | None, typer.Option(help="Show this table only.")] = None,
    top: Annotated[int, typer.Option(help="How many of the largest weights to show.", min=0)] = 10,
    generation: Annotated[int | None, typer.Option(help="This generation instead of the newest.")] = None,
    against: Annotated[int | None, typer.Option(help="Show what has changed since this generation.", min=1)] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write a table's values to FILE.npy or FILE.csv, or FILE.joblib: a model for scikit-learn.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Show what is in a checkpoint: tables, clocks, statistics, largest weights; or how two of them differ."""
    screen = standard_output()
    with Generation(master(path, generation)) as found:
        found.verify()
        names = _chosen(found, table)
        if export is not None:
            write(found, names, export)
            screen.print(f"wrote {export}", soft_wrap=True, highlight=False, markup=False)
            return
        if against is not None:
            _show_changes(screen, path, against, found, names, top)
            return
        _show_generations(screen, path, found)
        screen.print(_tables(found, names))
        summaries = {name: Summary(found, name, top) for name in names}
        screen.print(_statistics(summaries))
        screen.print(_sizes(summaries))
        for name, summary in summaries.items():
            if summary.top:
                screen.print(_largest(found, name, summary))


def _show_changes(screen: Console, path: Path, against: int, found: Generation, names: list[str], top: int) -> None:
    if not path.is_dir():
        raise CheckpointError(f"{path}: to compare generations name their run folder")
    with Generation(master(path, against)) as before:
        before.verify()
        changes = {name: Difference(before, found, name, top) for name in names}
    screen.print(differences(changes, before.number, found.number))
    for name, change in changes.items():
        if change.top:
            screen.print(largest(found, name, change))


class Summary:
    """Statistics of a table's values, gathered block by block.

    Parameters
    ----------
    generation : the generation to read.
    table : the table's name.
    count : how many of the largest values to keep.

    Attributes
    ----------
    nonzeros, nonfinite : numbers of such values.
    norm : Euclidean norm of the finite values.
    low, high : smallest and largest finite value.
    decades : how many values there are by the decimal exponent of their size, of those that are neither 0 nor infinite.
    top : (key, column, value) of the largest by absolute value, largest first.
    """

    def __init__(self, generation: Generation, table: str, count: int) -> None:
        self.nonzeros = 0
        self.nonfinite = 0
        self.low = np.inf
        self.high = -np.inf
        self.decades: Counter[int] = Counter()
        self.top: list[tuple[int, int, float]] = []
        squares = 0.0
        for keys, values in generation.values(table):
            flat = values.reshape(-1).astype(np.float64)
            finite = np.isfinite(flat)
            self.nonzeros += int(np.count_nonzero(flat))
            self.nonfinite += int(flat.size - np.count_nonzero(finite))
            self.low = float(flat.min(where=finite, initial=self.low))
            self.high = float(flat.max(where=finite, initial=self.high))
            flat[~finite] = 0.0
            exponents = np.floor(np.log10(np.abs(flat[flat != 0]))).astype(int)
            self.decades.update(
                dict(zip(*(each.tolist() for each in np.unique(exponents, return_counts=True)), strict=True))
            )
            squares += float(flat @ flat)
            self._keep_largest(keys, flat, values.shape[1], count)
        self.norm = float(np.sqrt(squares))

    def _keep_largest(self, keys: NDArray[Any], flat: NDArray[Any], width: int, count: int) -> None:
        size = np.abs(flat)
        if 0 < count < len(flat):
            places = np.argpartition(size, len(flat) - count)[-count:]
        else:
            places = np.arange(len(flat) if count else 0)
        places = places[size[places] > 0]
        block = [(int(keys[i // width]), int(i % width), float(flat[i])) for i in places]
        self.top = sorted(self.top + block, key=lambda entry: (-abs(entry[2]), entry[0], entry[1]))[:count]


def master(path: Path, generation: int | None) -> Path:
    """The master file that a person means."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such run folder or checkpoint")
    if not path.is_dir():
        return path
    masters = generations(path)
    if not masters:
        raise CheckpointError(f"{path}: no complete generation in this folder")
    if generation is None:
        return masters[0]
    for master in masters:
        if master.stem == f"generation-{generation:06d}":
            return master
    there = ", ".join(str(int(master.stem.partition("-")[2])) for master in masters)
    raise CheckpointError(f"{path}: no complete generation {generation}; there are: {there}")


def _chosen(generation: Generation, table: str | None) -> list[str]:
    if table is None:
        return list(generation.tables)
    if table not in generation.tables:
        raise CheckpointError(f'{generation.path}: no table "{table}"; there are: {", ".join(generation.tables)}')
    return [table]


def _show_generations(screen: Console, path: Path, shown: Generation) -> None:
    if path.is_dir():
        listed = Table(title=escape(f"generations in {path}"), title_justify="left")
        for column in ("generation", "time", "progress", "written", "in all", ""):
            listed.add_column(column, justify="right" if column in ("written", "in all") else "left")
        for master in generations(path):
            try:
                with Generation(master) as found:
                    found.verify()
                    own = sum(file.bytes for file in found.files if file.generation == found.number)
                    sizes = [_bytes(own), _bytes(sum(file.bytes for file in found.files))]
                    cells = [str(found.number), found.time, escape(_progress(found)), *sizes]
            except CheckpointError as error:
                reason = escape(str(error).removeprefix(f"{path}/"))
                cells = [str(int(master.stem.partition("-")[2])), "", reason, "", ""]
            listed.add_row(*cells, "shown below" if master == shown.path else "")
        screen.print(listed)
    else:
        screen.print(f"generation {shown.number} · {shown.time} · {_progress(shown)}", highlight=False, markup=False)


def _progress(generation: Generation) -> str:
    return " · ".join(
        f"{key} {value}" for key, value in generation.progress.items() if not isinstance(value, list | dict)
    )


def _tables(generation: Generation, names: list[str]) -> Table:
    shown = Table(title="tables", title_justify="left")
    for column in ("table", "kind", "shape", "dtype", "rule", "bytes", "clocks"):
        shown.add_column(column, justify="right" if column in ("shape", "bytes") else "left")
    for name in names:
        spec = generation.tables[name]
        rows = generation.rows(name)
        size = rows * (spec.row_bytes * (1 + spec.slots) + 8 * (spec.kind == "sparse"))
        shape = f"{rows:,} × {spec.width:,}"
        clocks = " ".join(f"{rank}:{time}" for rank, time in sorted(generation.clocks[name].items()))
        shown.add_row(escape(name), spec.kind, shape, spec.dtype, escape(_rule(spec)), _bytes(size), clocks)
    return shown


def _statistics(summaries: dict[str, Summary]) -> Table:
    shown = Table(title="values", title_justify="left")
    shown.add_column("table")
    for column in ("non-zeros", "norm", "min", "max", "not finite"):
        shown.add_column(column, justify="right")
    for name, s in summaries.items():
        low, high = (f"{s.low:.6g}", f"{s.high:.6g}") if s.low <= s.high else ("", "")
        shown.add_row(escape(name), f"{s.nonzeros:,}", f"{s.norm:.6g}", low, high, f"{s.nonfinite:,}")
    return shown


def _sizes(summaries: dict[str, Summary]) -> Table:
    """A histogram of each table: how many values there are of what size."""
    shown = Table(title="sizes of values", title_justify="left")
    shown.add_column("size", justify="right")
    decades = sorted({decade for summary in summaries.values() for decade in summary.decades})
    for name in summaries:
        shown.add_column(escape(name))
    for decade in range(decades[0], decades[-1] + 1) if decades else ():
        shown.add_row(f"1e{decade:+d}", *(_bar(summary.decades, decade) for summary in summaries.values()))
    return shown


def _bar(decades: Counter[int], decade: int) -> str:
    count, most = decades[decade], max(decades.values(), default=1)
    return f"{'█' * round(BAR * count / most) or '▏' * (count > 0):<{BAR}} {count:>9,}" if count else ""


def _largest(generation: Generation, table: str, summary: Summary) -> Table:
    width = generation.tables[table].width
    names = generation.names(table, np.array([key for key, _, _ in summary.top], np.uint64))
    shown = Table(title=escape(f"largest of {table}"), title_justify="left")
    for column in ["key", *["name"] * (names is not None), *["column"] * (width > 1), "value"]:
        shown.add_column(column, justify="left" if column == "name" else "right")
    for i, (key, place, value) in enumerate(summary.top):
        middle = ([escape(names[i])] if names else []) + ([str(place)] if width > 1 else [])
        shown.add_row(str(key), *middle, f"{value:.6g}")
    return shown


def _rule(spec: TableSpec) -> str:
    parameters = " ".join(f"{key}={value}" for key, value in spec.rule.items() if key != "name")
    return f"{spec.rule.get('name', '')} {parameters}".strip()


def _bytes(size: int) -> str:
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}"
