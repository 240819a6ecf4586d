"""A server's part of a generation: the shards that have changed are copied between messages and written aside; before
training they are restored.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mpips.checkpoint import CheckpointError, Generation
from mpips.checkpoint.spec import Writing
from mpips.checkpoint.write import ServerFile
from mpips.fabric import Fabric
from mpips.kernels.checksum import fletcher32
from mpips.line import Line
from mpips.messages import Checkpoint, Saved
from mpips.server.cut import Aside, CutHere
from mpips.server.shards import Shards
from mpips.server.written import Copied, Written

Array = np.ndarray[Any, Any]
T = TypeVar("T")
EMPTY = np.empty(0)

BATCH = 16 << 20  # bytes that are copied, then written in one go beside the loop
TRIES = 3  # to copy a shard beside the loop, until the loop does it: pushes come all the time


class AsTheyAre(NamedTuple):
    """What there is to write of a table's shards when each is written as it is then; see `mpips.server.cut.Aside`."""

    shards: Shards

    @property
    def versions(self) -> Array:
        """Of each shard (shards,) int64."""
        return self.shards.versions

    def last_pushes(self) -> dict[int, int]:
        """By worker, the last of its pushes that is applied wherever it pushes to."""
        return self.shards.last_pushes()

    def take(self, shard: int, copy: Callable[[int, Shards], T]) -> T:
        """Have a shard copied."""
        return copy(shard, self.shards)

    def take_aside(self, shard: int, copy: Callable[[int, Shards], T | None]) -> T | None:
        """The same beside this server's loop, unless the shard is written to meanwhile."""
        return copy(shard, self.shards)


class Due(NamedTuple):
    """A shard to be written, of a table, and what there is to write of it."""

    written: Written
    source: Aside | AsTheyAre
    shard: int

    def copy(self) -> Copied:
        """What is written."""
        return self.source.take(self.shard, self.written.copy)

    def copy_aside(self) -> Copied | None:
        """The same, copied beside this server's loop; None when that can't be."""
        return next(
            (found for _ in range(TRIES) if (found := self.source.take_aside(self.shard, self.written.copy_aside))),
            None,
        )


class Checkpoints:
    """Writes the shards that are led, as far as they have changed, when the scheduler asks for a generation.

    A shard is copied and written beside the loop, so no message waits for it. Only one that is changed whenever it is
    copied there is copied between messages, which takes a fraction of a millisecond.

    Parameters
    ----------
    tables : this server's shards of each table; there may be none yet.
    cut : keeps what they are at a cut.
    fabric, line : this rank's.
    writing : where to, and how.
    """

    def __init__(self, tables: Sequence[Shards], cut: CutHere, fabric: Fabric, line: Line, writing: Writing) -> None:
        self._tables = tables
        self._cut = cut
        self._fabric = fabric
        self._line = line
        self._writing = writing
        self._written: list[Written] = []
        self._under_way: Generator[bool, None, None] | None = None
        self._is_cut = False  # whether it is one that is under way
        cut.on_over = self._cut_over
        fabric.on(Checkpoint, self._begin)
        fabric.background.append(self._step)

    def hold(self) -> None:
        """The tables are made, and empty."""
        self._written = [Written(shards) for shards in self._tables]
        self._warm()

    def restore(self, path: Path) -> None:
        """Fill the shards from a generation of this job's run folder.

        Raises
        ------
        CheckpointError
            when it is damaged, or its tables have another shape or rule.
        """
        with Generation(path) as generation:
            for written in self._written:
                written.restore(generation)

    def _warm(self) -> None:
        """Have compiled, or loaded, what the first checkpoint would have to wait for."""
        fletcher32(np.zeros(2, np.uint16))
        for written in self._written:
            written.warm()

    def give_up(self) -> None:
        """The shards that are led are others now: what is being written would miss some, or read what is given back;
        the scheduler begins another generation.
        """
        self._stop()
        self._cut.end()
        for written in self._written:
            written.leave()

    def _stop(self) -> None:
        """Leave nothing of what is being written."""
        if self._under_way is not None:
            self._under_way.close()
            self._under_way = None

    def _cut_over(self) -> None:
        if self._is_cut:
            self._stop()

    def _begin(self, source: int, message: Checkpoint) -> None:
        assert self._writing.run is not None
        self._stop()
        self._is_cut = message.cut
        if message.cut:
            self._cut.begin(message.generation)  # unless a push that comes after it has done so
            if not self._cut.asides:
                return  # it has been given up meanwhile
        self._under_way = self._write(message, self._writing.run)

    def _step(self) -> bool:
        if self._under_way is None:
            return False
        for wrote in self._under_way:
            return wrote
        self._under_way = None
        return True

    def _write(self, message: Checkpoint, run: Path) -> Generator[bool, None, None]:
        """Write those of the own shards that have changed, some at a time. A step says whether it copied any."""
        error, written, file = None, list[Copied](), None
        rank, compression = self._fabric.rank, self._writing.compression
        try:
            file = yield from self._aside(lambda: ServerFile(run, message.generation, rank, compression))
            # what is copied later contains more, and what is left out as much
            sources: Sequence[Aside | AsTheyAre] = (
                self._cut.asides if message.cut else [AsTheyAre(shards) for shards in self._tables]
            )
            clocks = {
                shards.spec.name: source.last_pushes() for shards, source in zip(self._tables, sources, strict=True)
            }
            due = deque(
                Due(of_table, source, shard)
                for of_table, source in zip(self._written, sources, strict=True)
                for shard in of_table.due(message.generation, message.base, message.worn, source.versions)
            )
            ready = list[Copied]()
            while due or ready:
                begin, size, batch = self._fabric.now(), 0, list[Due]()
                while due and size < BATCH:
                    batch.append(due.popleft())
                    size += batch[-1].written.bytes(batch[-1].shard)
                copying = self._fabric.aside(partial(self._copy_aside, batch))
                yield from self._aside(partial(self._put, file, ready))
                found = yield from self._until(copying)
                written += [each._replace(keys=None, values=EMPTY, state=EMPTY) for each in ready]
                ready = []
                for next_, beside in zip(batch, found, strict=True):
                    ready.append(beside or next_.copy())
                    if beside is None:
                        yield True
                while self._writing.rate and self._fabric.now() < begin + size / (self._writing.rate * 1e6):
                    yield False
            yield from self._aside(partial(self._close, file, clocks))
            for copied in written:
                copied.written.note(copied.shard, message.generation, copied.version)
        except CheckpointError as problem:
            error = str(problem)
        except GeneratorExit:  # given up
            if file is not None:
                file.abort()
            raise
        if message.cut:
            self._cut.end()
        self._line.tell(Saved(message.generation, error))

    def _aside(self, work: Callable[[], T]) -> Generator[bool, None, T]:
        return (yield from self._until(self._fabric.aside(work)))

    @staticmethod
    def _until(done: "Future[T]") -> Generator[bool, None, T]:
        while not done.done():
            yield False
        return done.result()

    @staticmethod
    def _copy_aside(batch: list[Due]) -> list[Copied | None]:
        """Copy what is next, as far as that can be done beside the loop."""
        return [due.copy_aside() for due in batch]

    @staticmethod
    def _put(file: ServerFile, ready: list[Copied]) -> None:
        """Write what is copied."""
        for each in ready:
            each.put(file)
        if ready:
            file.start_sync()
        for each in ready:
            each.written.give_back(each)

    @staticmethod
    def _close(file: ServerFile, clocks: dict[str, dict[int, int]]) -> None:
        file.clocks(clocks)
        file.close()
