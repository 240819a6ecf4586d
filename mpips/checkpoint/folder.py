"""The generations in a run folder: which are complete, which go."""

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


def drop_old(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` complete generations, the server files that these don't need, and what crashed
    writers left.

    A master goes before its server files, so that what still has a master is whole at any time. While a master that is
    to be kept can't be read, no server file goes.

    Raises
    ------
    CheckpointError : a file cannot be removed.
    """
    masters = generations(run)
    if not masters:
        return
    newest = number(masters[0])
    try:
        needed = {path for master in masters[:keep] for path in _files(master)}
    except CheckpointError:
        needed = None
    with layout.writing(run):
        for path in masters[keep:]:
            path.unlink(missing_ok=True)
        for path in run.iterdir():
            name = path.name.removesuffix(layout.TEMPORARY).removesuffix(".h5")
            if not layout.FOLDER_NAME.fullmatch(name) or number(path) > newest:
                continue
            if path.is_dir() and needed is not None:
                for file in set(path.iterdir()) - needed:
                    file.unlink(missing_ok=True)
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.name.endswith(layout.TEMPORARY):
                path.unlink(missing_ok=True)


def _files(master: Path) -> list[Path]:
    with layout.open_file(master, layout.MASTER_FORMAT) as file, layout.reading(master):
        return [layout.server_path(master.parent, each.generation, each.rank) for each in files_of(file)]
