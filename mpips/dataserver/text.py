"""Files as chunks of text: about 1 MB each, cut where a row ends, decompressed on the way."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.errors import DataError, cannot_read

CHUNK_BYTES = 1 << 20
LONGEST_ROW = 64 << 20  # bytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open}


class CountRows(Protocol):
    """Count the rows of a text, at most `limit`: their number, and where the last of them ends."""

    def __call__(self, text: NDArray[np.uint8], limit: int) -> tuple[int, int]: ...


class Chunk(NamedTuple):
    """A piece of a file that begins and ends with whole rows.

    Attributes
    ----------
    text : uint8[size]
        Writable; the last byte is a newline.
    rows : int
        How many rows there are, malformed ones included.
    first_row : int
        The number of the first row in its file, from 0; a header is not counted.
    first_line : int
        The number of the first line in its file, from 1.
    """

    text: NDArray[np.uint8]
    rows: int
    first_row: int
    first_line: int


class TextFile:
    """One data file, plain or gzip by its name, read once from start to end.

    Parameters
    ----------
    path : Path
    count : CountRows
        What the format calls a row.
    header : bool
        Whether the first row is a header.

    Attributes
    ----------
    header : str
        The header as it stands in the file.
    """

    def __init__(self, path: Path, count: CountRows, header: bool) -> None:
        self.path = path
        self.header = ""
        self._count = count
        self._line = 1
        self._row = 0
        self._rest = bytearray()
        try:
            self._file = cast(BinaryIO, _OPEN.get(path.suffix, open)(path, "rb"))
        except OSError as error:
            raise cannot_read(path, error) from error
        try:
            if not self._read_more():
                raise DataError(f"{path}: is empty")
            if self._rest.startswith(_BYTE_ORDER_MARK):
                del self._rest[: len(_BYTE_ORDER_MARK)]
            if header:
                self.header = self._take_header()
        except DataError:
            self._file.close()
            raise

    def __enter__(self) -> "TextFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def chunks(self) -> Iterator[Chunk]:
        """The rest of the file, chunk by chunk.

        Raises
        ------
        DataError
            The file cannot be read to its end, is no text, has no rows or one longer than `LONGEST_ROW`.
        """
        more = True
        while more:
            more = self._read_more()
            rows, end = self._whole_rows(2**62, at_end=not more)
            if end:
                text, self._rest = self._rest[:end], self._rest[end:]
                yield Chunk(np.frombuffer(text, np.uint8), rows, self._row, self._line)
                self._row += rows
                self._line += text.count(b"\n")
        if self._row == 0:
            raise DataError(f"{self.path}: has no rows")

    def _take_header(self) -> str:
        more = True
        while more:
            rows, end = self._whole_rows(1, at_end=False)
            if rows:
                break
            more = self._read_more()
        else:
            rows, end = self._whole_rows(1, at_end=True)
        if not rows:
            raise DataError(f"{self.path}: has no header")
        header = self._rest[:end]
        del self._rest[:end]
        self._line += header.count(b"\n")
        try:
            return header.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: line 1: the header is not UTF-8 text") from error

    def _whole_rows(self, limit: int, at_end: bool) -> tuple[int, int]:
        """Number of whole rows among the bytes at hand, and where they end; at the end of the file, all."""
        if at_end and self._rest and not self._rest.endswith(b"\n"):
            self._rest += b"\n"
        rows, end = self._count(np.frombuffer(self._rest, np.uint8), limit)
        if at_end and end < len(self._rest) and rows < limit:  # a quoted cell that is never closed
            return rows + 1, len(self._rest)
        if end == 0 and len(self._rest) > LONGEST_ROW:
            raise DataError(
                f"{self.path}: line {self._line}: a row of more than {LONGEST_ROW >> 20} MB: "
                "a quoted cell that is never closed, or no text"
            )
        return rows, end

    def _read_more(self) -> bool:
        """Append a chunk's worth of bytes to those that were read; False at the end of the file."""
        try:
            data = self._file.read(CHUNK_BYTES)
        except EOFError as error:
            raise DataError(f"{self.path}: the gzip data end too early: the file is truncated") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{self.path}: the gzip data are damaged, or the file is not gzip: {error}") from error
        except OSError as error:
            raise cannot_read(self.path, error) from error
        if not self._rest and self._line == 1 and data.startswith(b"\x1f\x8b"):
            raise DataError(f"{self.path}: is gzip data: give it a name that ends in .gz")
        nul = data.find(b"\0")
        if nul >= 0:
            line = self._line + self._rest.count(b"\n") + data.count(b"\n", 0, nul)
            raise DataError(f"{self.path}: line {line}: a zero byte: the file is not text")
        self._rest += data
        return bool(data)
