"""A server's shards to a generation and back: written one at a time between messages, restored before training."""

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
        self._under_way: Iterator[bool] | None = None
        fabric.on(Checkpoint, self._begin)
        fabric.background.append(self._step)

    @staticmethod
    def warm() -> None:
        """Have the checksum compiled, or loaded, before the first checkpoint has to wait for it."""
        fletcher32(np.zeros(2, np.uint16))

    def give_up(self) -> None:
        """The shards that are led are others now: what is being written would miss some, or read what is given back;
        the scheduler begins another generation.
        """
        self._under_way = None

    def _begin(self, source: int, message: Checkpoint) -> None:
        assert self._run is not None
        self._under_way = self._write(message.generation, self._run)

    def _step(self) -> bool:
        if self._under_way is None:
            return False
        for wrote in self._under_way:
            return wrote
        self._under_way = None
        return True

    def _write(self, generation: int, run: Path) -> Iterator[bool]:
        """Write the own shards, one a step, so that pushes are served in between; a step says whether it wrote."""
        error = None
        try:
            file = ServerFile(run, generation, self._fabric.rank)
            for shards in self._tables:
                for shard in list(shards.led):
                    if shards.spec.kind == "dense":
                        file.dense(shards.spec, shard, *shards.dense_rows(shard))
                    else:
                        file.sparse(shards.spec, shard, *shards.rows(shard))
                    yield True
            file.clocks({shards.spec.name: shards.last_pushes() for shards in self._tables})
            done = self._fabric.aside(file.close)
            while not done.done():
                yield False
            done.result()
        except CheckpointError as problem:
            error = str(problem)
        self._line.tell(Saved(generation, error))


def restore(tables: Sequence[Shards], path: Path) -> None:
    """Fill shards from a generation.

    Raises
    ------
    CheckpointError
        when it is damaged, or its tables have another shape or rule.
    """
    for shards in tables:
        shards.clear()  # of what a generation that turned out damaged has left
    with Generation(path) as generation:
        for shards in tables:
            spec = shards.spec
            saved = generation.tables.get(spec.name)
            if saved is None or (saved.kind, saved.width, saved.dtype, saved.slots) != (
                spec.kind, spec.width, spec.dtype, spec.slots,
            ) or (spec.kind == "dense" and saved.rows != spec.rows):  # fmt: skip
                raise CheckpointError(
                    f'{path}: its table "{spec.name}" does not have the shape or rule that the job file asks for'
                )
            if spec.kind == "sparse":
                shards.load(generation.sparse(spec.name))
                continue
            for shard in shards.held:
                values, state = shards.dense_rows(shard)
                values[:], state[:] = generation.dense(spec.name, *spec.shard_range(shard))
