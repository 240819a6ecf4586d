"""What pushes and functions do to keys that somebody wants to look at: who, when, how much; recorded in the run folder.

Nothing of it is on a push's way unless keys of its table are traced; then it takes a search in the push's keys, and a
reading before and after where one is among them.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mpips.fabric import Fabric
from mpips.kernels.partition import places, positions
from mpips.line import Line
from mpips.messages import Note
from mpips.messages import Trace as TraceKeys
from mpips.server.aggregate import Part
from mpips.server.shards import Shards
from mpips.trace import Share, TraceFile, Update

WAITING = 10_000  # updates that wait for the disk, at most

Array = np.ndarray[Any, Any]


class Watched(NamedTuple):
    """Traced keys (m,) that a push or a function may be about to change, and their values (m, width) before."""

    table: int
    keys: Array
    before: Array


class Tracing:
    """One for each server.

    Parameters
    ----------
    fabric, line : this rank's.
    tables : this server's shards of each table; there may be none yet.
    run : the run folder; None: nothing is recorded.

    Attributes
    ----------
    keys : by table that has any, the keys that are traced.
    """

    def __init__(self, fabric: Fabric, tables: Sequence[Shards], line: Line, run: Path | None) -> None:
        self.keys: dict[int, Array] = {}
        self._fabric = fabric
        self._tables = tables
        self._line = line
        self._file = TraceFile(run, fabric.rank) if run is not None else None
        self._waiting: deque[Update] = deque(maxlen=WAITING)
        self._missed = 0
        self._writing: Future[str] | None = None
        self._complained = False
        fabric.on(TraceKeys, lambda source, message: self.trace(message.keys))
        fabric.background.append(self._step)

    def trace(self, keys: Mapping[str, Sequence[int]]) -> None:
        """From now on record what happens to these keys, by the name of their table, and to no others."""
        self.keys = {}
        for table, shards in enumerate(self._tables if self._file is not None else ()):
            wanted = np.array(keys.get(shards.spec.name, ()), np.uint64)
            if wanted.size:
                self.keys[table] = wanted
                self._warm(shards)

    def _warm(self, shards: Shards) -> None:
        """Compile, or load, what it takes: not at the next push."""
        no_keys = np.empty(0, np.uint64)
        self._values(shards, no_keys)
        positions(no_keys, shards.spec.kind == "dense", shards.spec.shard_bits)
        cached = no_keys.copy()
        cached.flags.writeable = False  # as lists are that a filter keeps
        for each in (no_keys, cached):
            places(each, no_keys, shards.spec.kind == "dense", shards.spec.shard_bits)

    def watch(self, table: int, lo: int, hi: int | None, keys: Array | None) -> Watched | None:
        """Before a push to `keys`, or what writes to all keys of ``[lo, hi)`` (`hi` None: no bound): which traced keys
        of the shards that are led are among these, if any is.
        """
        found = self.keys.get(table)
        if found is None:
            return None
        shards = self._tables[table]
        dense, bits = shards.spec.kind == "dense", shards.spec.shard_bits
        if keys is not None:
            found = found[places(keys, found, dense, bits) >= 0]
        else:
            found = found[(found >= lo) & ((found < hi) if hi is not None else True)]
            shard = positions(found, dense, bits) >> (bits if dense else 0)
            found = found[np.isin(shard, shards.led)]
        return Watched(table, found, self._values(shards, found)) if found.size else None

    def pushed(self, watched: Watched, step: int, parts: Mapping[int, Part]) -> None:
        """The parts of a step, by the identities of their workers, are applied as one."""
        spec = self._tables[watched.table].spec
        shares: list[list[Share]] = [[] for _ in watched.keys]
        for identity, part in parts.items():
            if part.keys is None:
                rows = watched.keys.astype(np.int64) - part.lo
            else:
                rows = places(part.keys, watched.keys, spec.kind == "dense", spec.shard_bits)
            for i in np.flatnonzero(rows >= 0).tolist():
                update = part.values[rows[i]].tolist()
                shares[i].append(Share(worker=identity, rank=part.rank, update=update))
        self._record(watched, step, shares)

    def called(self, watched: Watched, step: int, identity: int, rank: int, function: str) -> None:
        """A shard function that a worker called has written; who is left as it was is not mentioned."""
        shares = [[Share(worker=identity, rank=rank)]] * watched.keys.size
        self._record(watched, step, shares, function)

    def _record(self, watched: Watched, step: int, shares: list[list[Share]], function: str = "") -> None:
        spec = self._tables[watched.table].spec
        after, now = self._values(self._tables[watched.table], watched.keys), time.time()
        for i in range(watched.keys.size):
            if function and (after[i] == watched.before[i]).all():
                continue
            self._missed += len(self._waiting) == WAITING
            self._waiting.append(
                Update(
                    time=now,
                    server=self._fabric.rank,
                    table=spec.name,
                    key=int(watched.keys[i]),
                    step=step,
                    function=function,
                    shares=shares[i],
                    before=watched.before[i].tolist(),
                    after=after[i].tolist(),
                )
            )

    @staticmethod
    def _values(shards: Shards, keys: Array) -> Array:
        values = np.zeros((keys.size, shards.spec.width), shards.spec.dtype)
        shards.pull(keys, values)
        return values

    def _step(self) -> bool:
        """Have what waits written beside the loop, one write after the other."""
        if self._writing is not None and self._writing.done():
            self._complain(self._writing.result())
            self._writing = None
        if self._writing is not None or not self._waiting or self._file is None:
            return False
        updates, missed = list(self._waiting), self._missed
        self._waiting.clear()
        self._missed = 0
        if missed:
            updates[0] = msgspec.structs.replace(updates[0], missed=missed)
        self._writing = self._fabric.aside(partial(_write, self._file, updates))
        return True

    def _complain(self, problem: str) -> None:
        if problem and not self._complained:
            self._complained = True
            self._line.tell(Note(f"updates of traced keys can't be recorded: {problem}"))


def _write(file: TraceFile, updates: list[Update]) -> str:
    """What kept them from being written; "" if nothing did."""
    try:
        file.append(updates)
    except OSError as error:
        return error.strerror or str(error)
    return ""
