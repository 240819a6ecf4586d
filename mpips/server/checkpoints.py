"""A server's shards to a generation and back: those that have changed are written one at a time between messages,
they are restored before training."""

from collections.abc import Callable, Generator, Iterator, Sequence
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
from mpips.server.shards import Shards

T = TypeVar("T")
Array = np.ndarray[Any, Any]
EMPTY = np.empty(0)

BATCH = 8 << 20  # bytes that are copied, then written in one go beside the loop
SPARE_BUFFERS = 64


class _Copied(NamedTuple):
    """A shard as it was at a version of it: keys if its table is sparse, values and state."""

    written: "_Written"
    shard: int
    version: int
    keys: Array | None
    values: Array
    state: Array

    def put(self, file: ServerFile) -> None:
        """Write it."""
        spec = self.written.spec
        if self.keys is None:
            file.dense(spec, self.shard, self.values, self.state)
        else:
            file.sparse(spec, self.shard, self.keys, self.values, self.state)


class Checkpoints:
    """Writes the shards that are led, as far as they have changed, when the scheduler asks for a generation.

    A shard is copied between messages, which takes a fraction of a millisecond, and written beside the loop; so no
    message waits for the disk.

    Parameters
    ----------
    tables : this server's shards of each table; there may be none yet.
    fabric, line : this rank's.
    writing : where to, and how.
    """

    def __init__(self, tables: Sequence[Shards], fabric: Fabric, line: Line, writing: Writing) -> None:
        self._tables = tables
        self._fabric = fabric
        self._line = line
        self._writing = writing
        self._written: list[_Written] = []
        self._under_way: Iterator[bool] | None = None
        fabric.on(Checkpoint, self._begin)
        fabric.background.append(self._step)

    def hold(self) -> None:
        """The tables are made, and empty."""
        self._written = [_Written(shards) for shards in self._tables]
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

    @staticmethod
    def _warm() -> None:
        """Have the checksum compiled, or loaded, before the first checkpoint has to wait for it."""
        fletcher32(np.zeros(2, np.uint16))

    def give_up(self) -> None:
        """The shards that are led are others now: what is being written would miss some, or read what is given back;
        the scheduler begins another generation.
        """
        self._under_way = None
        for written in self._written:
            written.leave()

    def _begin(self, source: int, message: Checkpoint) -> None:
        assert self._writing.run is not None
        self._under_way = self._write(message, self._writing.run)

    def _step(self) -> bool:
        if self._under_way is None:
            return False
        for wrote in self._under_way:
            return wrote
        self._under_way = None
        return True

    def _write(self, message: Checkpoint, run: Path) -> Iterator[bool]:
        """Write those of the own shards that have changed: copy one a step, while those of the steps before are
        written. A step says whether it copied any.
        """
        error, copied = None, list[_Copied]()
        rank, compression = self._fabric.rank, self._writing.compression
        try:
            file = yield from self._aside(lambda: ServerFile(run, message.generation, rank, compression))
            # what is copied later contains more, and what is left out as much
            clocks = {shards.spec.name: shards.last_pushes() for shards in self._tables}
            due = [(each, shard) for each in self._written for shard in each.due(message.base, message.worn)]
            batch, size, begin = list[_Copied](), 0, self._fabric.now()
            before: Future[None] | None = None
            for i, (written, shard) in enumerate(due):
                batch.append(written.copy(shard))
                size += batch[-1].values.nbytes + batch[-1].state.nbytes
                yield True
                if size < BATCH and i + 1 < len(due):
                    continue
                if before is not None:
                    yield from self._until(before)
                copied += [each._replace(keys=None, values=EMPTY, state=EMPTY) for each in batch]
                before = self._fabric.aside(partial(self._put, file, batch))
                while self._writing.rate and self._fabric.now() < begin + size / (self._writing.rate * 1e6):
                    yield False
                batch, size, begin = [], 0, self._fabric.now()
            if before is not None:
                yield from self._until(before)
            yield from self._aside(partial(self._close, file, clocks))
            for each in copied:
                each.written.note(each.shard, message.generation, each.version)
        except CheckpointError as problem:
            error = str(problem)
        self._line.tell(Saved(message.generation, error))

    def _aside(self, work: Callable[[], T]) -> Generator[bool, None, T]:
        return (yield from self._until(self._fabric.aside(work)))

    @staticmethod
    def _until(done: "Future[T]") -> Generator[bool, None, T]:
        while not done.done():
            yield False
        return done.result()

    @staticmethod
    def _put(file: ServerFile, batch: list[_Copied]) -> None:
        for each in batch:
            each.put(file)
        file.start_sync()
        for each in batch:
            each.written.give_back(each)

    @staticmethod
    def _close(file: ServerFile, clocks: dict[str, dict[int, int]]) -> None:
        file.clocks(clocks)
        file.close()


class _Written:
    """Which shards of a table that are led have not changed since they were written, and in which generation that was.

    Parameters
    ----------
    shards : the table's.
    """

    def __init__(self, shards: Shards) -> None:
        self.spec = shards.spec
        self._shards = shards
        self._cells = shards.spec.shard_rows * shards.spec.width  # of a dense shard's values
        self._spare: list[Array] = []
        self._generations = np.zeros(shards.spec.shards, np.int64)  # 0: in none, as far as is known here
        self._versions = np.zeros(shards.spec.shards, np.int64)

    def due(self, base: int, worn: int) -> list[int]:
        """The shards that are led but for those that have not changed since they were written in one of the generations
        from `worn` to `base`, ascending.
        """
        known = (self._generations > 0) & (self._generations >= worn) & (self._generations <= base)
        known &= self._versions == self._shards.versions
        return [shard for shard in self._shards.led if not known[shard]]

    def copy(self, shard: int) -> _Copied:
        """A shard as it is."""
        shards, version = self._shards, int(self._shards.versions[shard])
        if self.spec.kind == "sparse":
            return _Copied(self, shard, version, *shards.rows(shard))
        values, state = shards.dense_rows(shard)
        buffer = self._spare.pop() if self._spare else np.empty((1 + self.spec.slots) * self._cells, self.spec.dtype)
        copied = buffer[: values.size].reshape(values.shape), buffer[self._cells :][: state.size].reshape(state.shape)
        copied[0][:], copied[1][:] = values, state
        return _Copied(self, shard, version, None, *copied)

    def give_back(self, copied: _Copied) -> None:
        """A copy has been written: its memory is used again, since fresh memory costs as much as copying."""
        buffer = copied.values.base
        if copied.keys is None and buffer is not None and len(self._spare) < SPARE_BUFFERS:
            self._spare.append(buffer)

    def note(self, shard: int, generation: int, version: int) -> None:
        """A shard is on the disk as it was at a version."""
        self._generations[shard], self._versions[shard] = generation, version

    def leave(self) -> None:
        """Of shards that are led no more nothing is known from now on: another server may change and write them."""
        others = np.ones(self._generations.size, np.bool_)
        others[self._shards.led] = False
        self._generations[others] = 0

    def restore(self, generation: Generation) -> None:
        """Fill the shards that are here with what is in a generation, all of which is on the disk.

        Raises
        ------
        CheckpointError
            when that is damaged, or the table there has another shape or rule.
        """
        shards, spec = self._shards, self._shards.spec
        shards.clear()  # of what a generation that turned out damaged has left
        self._generations[:] = 0
        saved = generation.tables.get(spec.name)
        if saved is None or (saved.kind, saved.width, saved.dtype, saved.slots) != (
            spec.kind, spec.width, spec.dtype, spec.slots,
        ) or (spec.kind == "dense" and saved.rows != spec.rows):  # fmt: skip
            raise CheckpointError(
                f'{generation.path}: its table "{spec.name}" does not have the shape or rule that the job file asks for'
            )
        if spec.kind == "sparse":
            shards.load(generation.sparse(spec.name))
        else:
            for shard in shards.held:
                values, state = shards.dense_rows(shard)
                values[:], state[:] = generation.dense(spec.name, *spec.shard_range(shard))
        if saved.shards == spec.shards:
            written = np.array([file.generation for file in generation.files], np.int64)
            index = generation.index[spec.name]
            self._generations[index["shard"]] = written[index["file"]]
            self._versions[:] = shards.versions
            self.leave()
