"""A server's shards to a generation and back: those that have changed are written one at a time between messages,
they are restored before training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mpips.checkpoint import CheckpointError, Generation
from mpips.checkpoint.write import ServerFile
from mpips.fabric import Fabric
from mpips.kernels.checksum import fletcher32
from mpips.line import Line
from mpips.messages import Checkpoint, Saved
from mpips.server.shards import Shards


class Checkpoints:
    """Writes the shards that are led when the scheduler asks for a generation.

    Parameters
    ----------
    tables : this server's shards of each table; there may be none yet.
    fabric, line : this rank's.
    run : the run folder; None for a job without checkpoints.
    """

    def __init__(self, tables: Sequence[Shards], fabric: Fabric, line: Line, run: Path | None) -> None:
        self._tables = tables
        self._fabric = fabric
        self._line = line
        self._run = run
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
        assert self._run is not None
        self._under_way = self._write(message, self._run)

    def _step(self) -> bool:
        if self._under_way is None:
            return False
        for wrote in self._under_way:
            return wrote
        self._under_way = None
        return True

    def _write(self, message: Checkpoint, run: Path) -> Iterator[bool]:
        """Write those of the own shards that have changed, one a step, so that pushes are served in between; a step
        says whether it wrote.
        """
        error = None
        try:
            file, now = ServerFile(run, message.generation, self._fabric.rank), list[tuple[_Written, int, int]]()
            # what is written later contains more, and what is left out as much
            file.clocks({shards.spec.name: shards.last_pushes() for shards in self._tables})
            for written in self._written:
                for shard in written.due(message.base, message.worn):
                    now.append((written, shard, written.write(file, shard)))
                    yield True
            done = self._fabric.aside(file.close)
            while not done.done():
                yield False
            done.result()
            for written, shard, version in now:
                written.note(shard, message.generation, version)
        except CheckpointError as problem:
            error = str(problem)
        self._line.tell(Saved(message.generation, error))


class _Written:
    """Which shards of a table that are led have not changed since they were written, and in which generation that was.

    Parameters
    ----------
    shards : the table's.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._generations = np.zeros(shards.spec.shards, np.int64)  # 0: in none, as far as is known here
        self._versions = np.zeros(shards.spec.shards, np.int64)

    def due(self, base: int, worn: int) -> list[int]:
        """The shards that are led but for those that have not changed since they were written in one of the generations
        from `worn` to `base`, ascending.
        """
        known = (self._generations > 0) & (self._generations >= worn) & (self._generations <= base)
        known &= self._versions == self._shards.versions
        return [shard for shard in self._shards.led if not known[shard]]

    def write(self, file: ServerFile, shard: int) -> int:
        """Write a shard as it is, and tell its version."""
        shards = self._shards
        if shards.spec.kind == "dense":
            file.dense(shards.spec, shard, *shards.dense_rows(shard))
        else:
            file.sparse(shards.spec, shard, *shards.rows(shard))
        return int(shards.versions[shard])

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
