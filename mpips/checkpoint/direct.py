"""What h5py and Python don't offer to who serves while its disk is written to: chunks handed to HDF5 without Python's
lock, and a disk that begins early.

h5py keeps the lock in every call: at full speed a fifth of the time that others could use. So HDF5's own function is
called, in the very library that h5py has loaded; where that can't be found h5py does it.
"""

import ctypes
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
from h5py._objects import phil
from numpy.typing import NDArray

LIBRARY = re.compile(r"/libhdf5(?!_hl|_cpp|_fortran|_f90)[^/]*\.so[^/]*$")
SYNC_FILE_RANGE_WRITE = 2
MAPS = Path("/proc/self/maps")


@cache
def _write_chunk() -> Callable[..., int] | None:
    try:
        fields = [line.split(maxsplit=5) for line in MAPS.read_text().splitlines()]
        found = {each[5] for each in fields if len(each) == 6 and LIBRARY.search(each[5])}
        if len(found) != 1:  # of two it is not known which is h5py's
            return None
        function = ctypes.CDLL(found.pop()).H5Dwrite_chunk
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_int
    function.argtypes = [
        ctypes.c_int64, ctypes.c_int64, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p,
    ]  # fmt: skip
    return function


@cache
def _sync_file_range() -> Callable[..., int] | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)  # Linux has it
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function


def start_sync(descriptor: int) -> None:
    """Have the system begin to bring to the disk what a file has in memory, and not wait until it is much."""
    function = _sync_file_range()
    if function is not None:
        function(descriptor, 0, 0, SYNC_FILE_RANGE_WRITE)  # an error is found by the fsync that follows


def write_chunk(dataset: h5py.Dataset, row: int, chunk: NDArray[Any]) -> None:
    """Write a chunk that begins at a row, as it is to be on the disk: (bytes,) uint8, filters applied.

    Raises
    ------
    OSError
        as h5py does.
    """
    function = _write_chunk()
    offset = (row, *(0,) * (dataset.ndim - 1))
    if function is not None:
        at = (ctypes.c_uint64 * dataset.ndim)(*offset)
        with phil:  # h5py's own lock: HDF5 does one thing at a time
            if function(dataset.id.id, 0, 0, at, chunk.nbytes, chunk.ctypes.data) >= 0:
                return
    dataset.id.write_direct_chunk(offset, chunk)
