"""The record of what pushes did to keys that somebody wants to look at: files in the run folder, one of each server.

A server appends a line of JSON for each update of such a key. Of each file there is at most one before it, so the last
updates are kept and no disk is filled.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

LIMIT = 8 << 20  # bytes of a file; then another begins
FILES = "trace-*.jsonl"

Numbers = list[float | None]  # None: not finite


class Share(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one worker has pushed: its identity, which whoever takes its place takes over, its rank, and the numbers
    pushed, (width·inputs,); none of a function.
    """

    worker: int
    rank: int
    update: Numbers = []


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key was updated.

    Parameters
    ----------
    time : seconds since 1970, at the server.
    server : the rank that applied it.
    table, key : which.
    step : of the push among those of its worker, see `mpips.worker.steps`.
    function : the shard function that wrote to it; "" of a push.
    shares : of the workers whose pushes were applied as one; of a table that does not aggregate a single one.
    before, after : the key's values (width,).
    missed : updates before this one that came too fast for the disk, and are not in the file.
    """

    time: float
    server: int
    table: str
    key: int
    step: int
    function: str = ""
    shares: list[Share]
    before: Numbers
    after: Numbers
    missed: int = 0


class TraceFile:
    """A server's file, which it appends to.

    Parameters
    ----------
    run : the run folder.
    rank : the server's.
    limit : bytes after which another file begins.
    """

    def __init__(self, run: Path, rank: int, limit: int = LIMIT) -> None:
        self._path = run / f"trace-{rank}.jsonl"
        self._before = run / f"trace-{rank}.1.jsonl"
        self._limit = limit

    def append(self, updates: Sequence[Update]) -> None:
        """Append updates.

        Raises
        ------
        OSError
            when the run folder can't be written.
        """
        with self._path.open("ab") as file:
            file.write(msgspec.json.Encoder().encode_lines(updates))
            full = file.tell() >= self._limit
        if full:
            os.replace(self._path, self._before)


class Trace:
    """Reads the files of a run, while they grow.

    Parameters
    ----------
    run : the run folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._read: dict[int, int] = {}  # bytes read of each file, by inode, as a file is renamed when it is full
        self._decoder = msgspec.json.Decoder(Update)

    def new(self) -> list[Update]:
        """The updates since the last call, by their time. A line that is not complete yet waits for the next.

        Of an update that was lost with its server, before a copy had it, only that counts which was made when the
        worker pushed again.
        """
        read, found = dict[int, int](), dict[object, Update]()
        for path in self._run.glob(FILES):
            try:
                with path.open("rb") as file:
                    status = os.fstat(file.fileno())
                    begin = self._read.get(status.st_ino, 0)
                    begin = begin if begin <= status.st_size else 0
                    file.seek(begin)
                    lines = file.read()
            except FileNotFoundError:  # renamed just now
                continue
            lines = lines[: lines.rfind(b"\n") + 1]
            read[status.st_ino] = begin + len(lines)
            for update in self._decoder.decode_lines(lines):
                workers = tuple(share.worker for share in update.shares)
                which = update.table, update.key, update.step, update.function, workers
                if which not in found or found[which].time < update.time:
                    found[which] = update
        self._read = read
        return sorted(found.values(), key=lambda update: update.time)


def forget(run: Path) -> None:
    """Remove what servers of an earlier job have recorded.

    Raises
    ------
    OSError
        when the run folder can't be written.
    """
    for path in run.glob(FILES):
        path.unlink(missing_ok=True)
