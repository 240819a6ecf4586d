"""The error of everything that can be wrong with the data."""

from pathlib import Path

from mpips.errors import Error


class DataError(Error, ValueError):
    """A data file, or what the job file asks of it, is wrong; the text names file, line and remedy."""


def reason_of(error: OSError) -> str:
    """What the operating system says about a failure, without the number and the path."""
    return error.strerror or str(error)


def cannot_read(path: Path, error: OSError) -> DataError:
    """The error of a file that the operating system does not let us read."""
    return DataError(f"{path}: cannot be read: {reason_of(error)}")
