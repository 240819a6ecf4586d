"""The generations in a run folder: which are complete, which stay, which go.

A generation shares files with those before it, so damage to one file may cost several. Therefore one that has no file
in common with the newest is kept as well, as soon as there is one: `mpips.server.written` sees to that.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mpips.checkpoint import layout
from mpips.checkpoint.layout import CheckpointError
from mpips.checkpoint.read import files_of


def number(path: Path) -> int:
    """The generation's number in the name of its master or its folder."""
    return int(path.name.partition("-")[2].partition(".")[0])


def generations(run: Path) -> list[Path]:
    """The masters of the complete generations in a run folder, newest first; empty without the folder."""
    if not run.is_dir():
        return []
    with layout.reading(run):
        masters = [path for path in run.iterdir() if layout.MASTER_NAME.fullmatch(path.name)]
    return sorted(masters, key=number, reverse=True)


def next_generation(run: Path) -> int:
    """A number above every generation's in a run folder, complete or not: no file of a crashed one is met."""
    if not run.is_dir():
        return 1
    with layout.reading(run):
        known = [path for path in run.iterdir() if layout.FOLDER_NAME.match(path.name)]
    return 1 + max((number(path) for path in known), default=0)


def drop_old(run: Path, keep: int, base: int = 0) -> None:
    """Remove all but the newest `keep` complete generations, the server files that these don't need, and what crashed
    writers left.

    With `keep` above 1 two more stay, as long as they are not among those: the newest one that has no file in common
    with the newest of all, and the oldest after that, which will take its place. A master goes before its server files,
    so that what still has a master is whole at any time. While a master that is to be kept can't be read, no server
    file goes.

    Parameters
    ----------
    run : the run folder.
    keep : complete generations to keep.
    base : the generation from which the job has gone on to the newest, if it has; those between the two were found
        damaged, and go.

    Raises
    ------
    CheckpointError : a file cannot be removed.
    """
    masters = generations(run)
    if not masters:
        return
    newest = number(masters[0])
    whole = [path for path in masters if not 0 < base < number(path) < newest]
    files = {path: _files(path) for path in whole}
    kept = _kept(whole, keep, files)
    needed = {file for path in kept for file in files[path] or ()}
    known = all(files[path] is not None for path in kept)
    with layout.writing(run):
        for path in masters:
            if path not in kept:
                path.unlink(missing_ok=True)
        for path in run.iterdir():
            name = path.name.removesuffix(layout.TEMPORARY).removesuffix(".h5")
            if not layout.FOLDER_NAME.fullmatch(name) or number(path) > newest:
                continue
            if path.is_dir() and known:
                _clear(path, needed)
            elif path.name.endswith(layout.TEMPORARY):
                path.unlink(missing_ok=True)


def drop_unfinished(run: Path) -> None:
    """Remove what is there of generations after the newest complete one. To be called when nobody writes any: on a full
    disk it may be what fills it.

    Raises
    ------
    CheckpointError : a file cannot be removed.
    """
    masters = generations(run)
    newest = number(masters[0]) if masters else 0
    with layout.writing(run):
        for path in run.iterdir() if run.is_dir() else ():
            name = path.name.removesuffix(layout.TEMPORARY).removesuffix(".h5")
            if layout.FOLDER_NAME.fullmatch(name) and number(path) > newest:
                drop_failed(run, number(path))


def drop_failed(run: Path, generation: int) -> None:
    """Remove what is there of a generation that will never be complete; nothing of one that is.

    Raises
    ------
    CheckpointError : a file cannot be removed.
    """
    master = layout.master_path(run, generation)
    with layout.writing(run):
        if master.exists():
            return
        layout.temporary(master).unlink(missing_ok=True)
        folder = layout.server_folder(run, generation)
        if folder.is_dir():
            _clear(folder, set())


def _clear(folder: Path, needed: set[Path]) -> None:
    """Remove what is not needed of a folder of server files; and the folder, if that leaves it empty."""
    for file in set(folder.iterdir()) - needed:
        file.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _kept(masters: Sequence[Path], keep: int, files: Mapping[Path, set[Path] | None]) -> set[Path]:
    """Of masters, newest first, those that are kept; `files` are those of each, None where that is not known."""
    kept, newest = set(masters[:keep]), files[masters[0]]
    if keep > 1 and newest is not None:
        apart = [path for path in masters[1:] if (its := files[path]) is not None and its.isdisjoint(newest)]
        after = masters[: masters.index(apart[0])] if apart else masters
        kept |= {*apart[:1], after[-1]}
    return kept


def _files(master: Path) -> set[Path] | None:
    """The server files that a generation needs; None when its master can't be read."""
    try:
        with layout.open_file(master, layout.MASTER_FORMAT) as file, layout.reading(master):
            return {layout.server_path(master.parent, each.generation, each.rank) for each in files_of(file)}
    except CheckpointError:
        return None
