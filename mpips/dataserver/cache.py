"""Batches in an HDF5 file: written once, under a temporary name, and read by every run of the same data."""

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

from mpips.dataserver.batch import Batch
from mpips.dataserver.dictionary import Dictionary
from mpips.dataserver.errors import DataError, reason_of

FORMAT = 1
_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 16 << 20  # what HDF5 may still hold back
_OPTIONS = {"locking": False, "rdcc_nbytes": 4 * _CHUNK_BYTES}  # no lock: a file with its own name never changes


class Summary(msgspec.Struct, frozen=True):
    """What a cache says about the data of one data server."""

    train: int
    test: int
    train_rows: int
    test_rows: int
    skipped: int
    features: int


class DamagedError(DataError):
    """A cache file is not what we have written, whole and for these data; it is built again."""


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path.parent}: the cache of the data cannot be written: {reason_of(error)}; "
            "set data.cache to another folder"
        ) from error


def _remove_abandoned(path: Path) -> None:
    """Remove what builds of this cache that were killed on this machine have left behind."""
    ours = f".{path.name}.{socket.gethostname()}."
    for left in path.parent.glob(".*"):
        process = left.name.removeprefix(ours)
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            left.unlink(missing_ok=True)


class CacheWriter:
    """Writes a cache; it appears under its own name when it is whole.

    Parameters
    ----------
    path : Path
        The file to be; its folder is made.

    Raises
    ------
    DataError
        The folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
        _remove_abandoned(path)
        self._end = 0
        self._places: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
        self.rows = {False: 0, True: 0}
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(self._temporary, "w", libver="v110", **_OPTIONS)
        self._blobs = self._file.create_dataset(
            "blobs", (0,), np.uint8, chunks=(_CHUNK_BYTES,), maxshape=(None,), fletcher32=True
        )

    def append(self, batch: Batch, test: bool) -> None:
        """Write a batch behind the others."""
        blob = np.empty(batch.nbytes, np.uint8)
        batch.pack(blob)
        with _explained(self._path):
            self._claim(blob.size)
            self._blobs.resize((self._end + blob.size,))
            self._blobs[self._end :] = blob
        self._places[test].append((self._end, blob.size))
        self._end += blob.size
        self.rows[test] += len(batch)

    def finish(self, fingerprint: str, skipped: int, features: int, dictionary: Dictionary | None) -> None:
        """Write what belongs to the whole, and give the file its name."""
        train, test = self._places[False], self._places[True]
        summary = Summary(len(train), len(test), self.rows[False], self.rows[True], skipped, features)
        with _explained(self._path):
            places = np.array(train + test, np.int64).reshape(-1, 2)
            self._file.create_dataset("places", data=places, chunks=(4096, 2), maxshape=(None, 2), fletcher32=True)
            if dictionary is not None:
                blob = dictionary.pack()
                self._claim(blob.size)
                self._file.create_dataset("dictionary", data=blob, chunks=True, fletcher32=True)
            self._file.attrs["summary"] = np.bytes_(msgspec.json.encode(summary))
            self._file.attrs["fingerprint"] = np.bytes_(fingerprint.encode())
            self._file.close()
            with self._temporary.open("rb+") as file:
                os.fsync(file.fileno())
            self._temporary.replace(self._path)

    def _claim(self, nbytes: int) -> None:
        """Refuse to begin what would fill the disk: HDF5 does not survive a write that fails."""
        if shutil.disk_usage(self._path.parent).free < nbytes + _SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class CacheReader:
    """Reads a cache.

    Raises
    ------
    DamagedError
        The file is not there, not whole, or was made of other data.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        try:
            self._file = h5py.File(path, "r", **_OPTIONS)
        except OSError as error:
            raise DamagedError(f"{self._path}: {error}") from error
        try:
            if self._file.attrs["fingerprint"] != fingerprint.encode():
                raise DamagedError(f"{path}: made of other data")
            self.summary = msgspec.json.decode(bytes(self._file.attrs["summary"]), type=Summary)
            self._places: NDArray[np.int64] = self._file["places"][()]
            self._blobs = self._file["blobs"]
            self.dictionary = Dictionary.unpack(self._file["dictionary"][()]) if "dictionary" in self._file else None
            if self._places.shape != (self.summary.train + self.summary.test, 2):
                raise DamagedError(f"{path}: places are missing")
            if self._places.size and self._places.sum(1).max() != self._blobs.size:
                raise DamagedError(f"{path}: batches are missing")
        except DamagedError:
            self._file.close()
            raise
        except (OSError, KeyError, ValueError, RuntimeError, msgspec.MsgspecError) as error:
            self._file.close()
            raise DamagedError(f"{self._path}: {error}") from error

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64[train + test] bytes of every batch's blob."""
        return np.ascontiguousarray(self._places[:, 1])

    def read(self, index: int, out: NDArray[np.uint8]) -> int:
        """Read the blob of a batch into the start of `out` (uint8, contiguous); its number of bytes.

        Raises
        ------
        DamagedError
            The bytes are not those that were written.
        """
        start, size = self._places[index].tolist()
        try:
            self._blobs.read_direct(out, np.s_[start : start + size], np.s_[:size])
        except OSError as error:
            raise DamagedError(f"{self._path}: {error}") from error
        return int(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
