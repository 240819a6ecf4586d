"""Names in a run folder and in its HDF5 files, and what opening, closing and failing mean there.

A file is written under a temporary name, forced to the disk and renamed: a final name means a whole file.
Texts are attributes of fixed length: HDF5 keeps those under a checksum, unlike strings of variable length.
"""

import errno
import importlib.metadata
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from mpips.errors import Error

VERSION = 2
MASTER_FORMAT = "mpips"
SERVER_FORMAT = "mpips server"
TEMPORARY = ".tmp"
LIBVER = ("v110", "v110")  # checksums on metadata, and every HDF5 since 1.10 reads it

MASTER_NAME = re.compile(r"generation-(\d{6,})\.h5")
FOLDER_NAME = re.compile(r"generation-(\d{6,})")
MASTER_INDEX = np.dtype([("shard", "<i8"), ("file", "<i8"), ("offset", "<i8"), ("rows", "<i8")])
SERVER_INDEX = np.dtype([("shard", "<i8"), ("offset", "<i8"), ("rows", "<i8")])
FILES = np.dtype([("generation", "<i8"), ("rank", "<i8"), ("bytes", "<i8"), ("id", "S32")])

REMEDIES = {
    errno.ENOSPC: "free some space there, or set checkpoint.folder to another disk",
    errno.EDQUOT: "free some of your quota, or set checkpoint.folder to another disk",
    errno.EFBIG: "raise the limit on file size (ulimit -f)",
    errno.EACCES: "make it writable, or set checkpoint.folder to a folder that is",
    errno.EPERM: "make it writable, or set checkpoint.folder to a folder that is",
    errno.EROFS: "set checkpoint.folder to a folder that is writable",
    errno.ENOTDIR: "set checkpoint.folder to a path that leads through folders only",
    errno.EEXIST: "set checkpoint.folder to a path that is not a file",
}


class CheckpointError(Error, OSError):
    """A checkpoint cannot be written or read; the text names the file and what is wrong."""


def master_path(run: Path, generation: int) -> Path:
    """The master file: its presence means that the generation is complete."""
    return run / f"generation-{generation:06d}.h5"


def server_folder(run: Path, generation: int) -> Path:
    """The folder of a generation's server files."""
    return run / f"generation-{generation:06d}"


def server_path(run: Path, generation: int, rank: int) -> Path:
    """One server's file of a generation."""
    return server_folder(run, generation) / f"server-{rank}.h5"


def temporary(path: Path) -> Path:
    """The name a file has while it is written."""
    return path.with_name(path.name + TEMPORARY)


def put_text(attributes: h5py.AttributeManager, name: str, text: str) -> None:
    """Store a text as UTF-8 of fixed length."""
    data = text.encode()
    attributes.create(name, np.array(data, dtype=h5py.string_dtype("utf-8", max(1, len(data)))))


def get_text(attributes: h5py.AttributeManager, name: str) -> str:
    """The text that `put_text` stored."""
    return bytes(attributes[name]).decode()


def to_json(value: Any) -> str:
    """A value as the text of an attribute."""
    return msgspec.json.encode(value).decode()


def describe_file(file: h5py.File, form: str, generation: int) -> None:
    """Say whose file this is, in attributes of its root, and prepare it for tables."""
    put_text(file.attrs, "format", form)
    put_text(file.attrs, "mpips", _version())
    file.attrs["version"] = VERSION
    file.attrs["generation"] = generation
    file.create_group("tables")


def put_records(group: h5py.Group, name: str, records: NDArray[Any]) -> None:
    """Store a small array of records, under a checksum."""
    group.create_dataset(name, data=records, chunks=(len(records),), fletcher32=True)


def _version() -> str:
    try:
        return importlib.metadata.version("mpips")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"


def create(path: Path) -> h5py.File:
    """A new, empty HDF5 file under `path`'s temporary name; its folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return h5py.File(temporary(path), "w", libver=LIBVER, locking=False)
    except OSError:
        with suppress(OSError):
            temporary(path).unlink()
        raise


def publish(path: Path) -> None:
    """Force the temporary file of `path` to the disk, then give it its name, for good."""
    _sync(temporary(path))
    os.replace(temporary(path), path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write into a CheckpointError that says what, where and what to do."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError) as error:
        number = _errno(error)
        remedy = f"; {REMEDIES[number]}" if number in REMEDIES else ""
        raise CheckpointError(f"{path}: cannot write the checkpoint: {_reason(error)}{remedy}") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a failed read into a CheckpointError that says which file is damaged, and how."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        raise CheckpointError(f"{path}: {_damage(error)}") from error


def open_file(path: Path, form: str) -> h5py.File:
    """Open one of our files for reading.

    Raises
    ------
    CheckpointError : missing, unreadable, truncated, foreign, or of another format version.
    """
    with reading(path):
        file = h5py.File(path, "r", locking=False)
    try:
        with reading(path):
            if "format" not in file.attrs or get_text(file.attrs, "format") != form:
                raise CheckpointError(f"{path}: an HDF5 file, but not {_FORMS[form]}")
            version = int(file.attrs["version"])
            if version != VERSION:
                raise CheckpointError(
                    f"{path}: written in format version {version}, but this mpips reads version {VERSION}"
                )
    except CheckpointError:
        file.close()
        raise
    return file


_FORMS = {
    MASTER_FORMAT: "the master of an mpips checkpoint",
    SERVER_FORMAT: "an mpips server's part of a checkpoint",
}


def _errno(error: Exception) -> int | None:
    """The system's error number, which HDF5 may only mention in its text."""
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"errno = (\d+)", str(error))):
        number = int(found[1])
    return number


def _reason(error: Exception) -> str:
    number = _errno(error)
    return os.strerror(number) if number else str(error).splitlines()[0]


def _damage(error: Exception) -> str:
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a file"
    if "file signature not found" in text:
        return "not an HDF5 file, or truncated to less than its header"
    if "truncated file" in text:
        return "truncated: shorter than it was written"
    if "checksum" in text.lower() or "filter returned failure" in text:
        return "damaged: a checksum does not match"
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read: {os.strerror(error.errno)}"
    return f"damaged: {text.splitlines()[0] if text else type(error).__name__}"
