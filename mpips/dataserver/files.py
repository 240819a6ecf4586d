"""Finding the data: the files, or the folders of images, that a job file names by paths and patterns."""

import glob
from pathlib import Path

from mpips.dataserver.errors import DataError, cannot_read


def find(pattern: str, base: Path, folders: bool = False) -> list[Path]:
    """The files, or the `folders`, that a path or a glob, relative to `base`, names; those of a glob are sorted.

    Raises
    ------
    DataError
        when there is none, or one of the other kind.
    """
    path, kind = base / pattern, "folder" if folders else "file"
    if glob.has_magic(pattern) and not path.exists():
        names = sorted(glob.glob(pattern, root_dir=base, recursive=True))
        found = [base / name for name in names if (base / name).is_dir() == folders]
        if not found:
            raise DataError(f'no {kind} matches "{pattern}" in {base}')
        return found
    if not path.exists():
        raise DataError(f"{path}: no such {kind}")
    if path.is_dir() and not folders:
        raise DataError(f'{path}: is a folder; to read all files in it write "{pattern.rstrip("/")}/*"')
    if folders and not path.is_dir():
        raise DataError(f"{path}: is no folder")
    return [path]


def find_files(patterns: tuple[str, ...], base: Path, folders: bool = False) -> list[Path]:
    """What these name, each as `find` has it, in their order, each file once."""
    return list(dict.fromkeys(path for pattern in patterns for path in find(pattern, base, folders)))


def find_apart(
    files: tuple[str, ...], test_files: tuple[str, ...], base: Path, folders: bool = False
) -> tuple[list[Path], list[Path]]:
    """What is trained on and what is tested on, each as `find_files` has it.

    Raises
    ------
    DataError
        As `find`, and when something is both.
    """
    train, test = (find_files(patterns, base, folders) for patterns in (files, test_files))
    both = {path.resolve() for path in train} & {path.resolve() for path in test}
    if both:
        raise DataError(f"{min(both)}: is both in data.files and in data.test_files")
    return train, test


def check_readable(path: Path) -> None:
    """Raise `DataError` when nothing can be read from this file."""
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise DataError(f"{path}: is empty")
    except OSError as error:
        raise cannot_read(path, error) from error
