"""The generations in a run folder, by the names of its files alone: which are complete, which go."""

import shutil
from pathlib import Path

from mpips.checkpoint import layout


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
    """Remove all but the newest `keep` complete generations, and what crashed writers left of older ones.

    A master goes before its server files, so that what still has a master is whole at any time.

    Raises
    ------
    CheckpointError : a file cannot be removed.
    """
    masters = generations(run)
    if not masters:
        return
    newest = number(masters[0])
    kept = {path.stem for path in masters[:keep]}
    with layout.writing(run):
        for path in masters[keep:]:
            path.unlink(missing_ok=True)
        for path in run.iterdir():
            name = path.name.removesuffix(layout.TEMPORARY).removesuffix(".h5")
            if not layout.FOLDER_NAME.fullmatch(name) or number(path) > newest:
                continue
            if path.is_dir() and name not in kept:
                shutil.rmtree(path)
            elif path.name.endswith(layout.TEMPORARY):
                path.unlink(missing_ok=True)
            elif path.is_dir():
                for stale in path.glob(f"*{layout.TEMPORARY}"):
                    stale.unlink(missing_ok=True)
