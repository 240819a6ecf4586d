"""What is on the disk of a table's shards: which have changed since they were written, copies of those to be written,
and the way back.
"""

from typing import Any, NamedTuple

import numpy as np

from mpips.checkpoint import CheckpointError, Generation
from mpips.checkpoint.write import ServerFile
from mpips.server.shards import Shards

Array = np.ndarray[Any, Any]

SPARE_BUFFERS = 64
TURNS = 128  # generations in which every shard is written once at least: so no file is needed for ever


class Copied(NamedTuple):
    """A shard as it was at a version of it: keys if its table is sparse, values and state."""

    written: "Written"
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


class Written:
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

    def due(self, generation: int, base: int, worn: int, versions: Array) -> list[int]:
        """The shards that are led but for those that have not changed since they were written in one of the generations
        from `worn` to `base`, and whose turn it is not either; ascending. `versions` (shards,) are those to be written.
        """
        known = (self._generations > 0) & (self._generations >= worn) & (self._generations <= base)
        known &= self._versions == versions
        known &= (np.arange(known.size) + generation) % TURNS > 0
        return [shard for shard in self._shards.led if not known[shard]]

    def warm(self) -> None:
        """Compile, or load, what copies take: not at the first."""
        for shard in self._shards.held[:1]:
            self.copy_aside(shard, self._shards)

    def bytes(self, shard: int) -> int:
        """Of a copy, about."""
        cells = self._shards.dense_rows(shard)[0].size if self.spec.kind == "dense" else self._shards.count(shard)
        return cells * self.spec.itemsize * (1 + self.spec.slots)

    def copy(self, shard: int, shards: Shards) -> Copied:
        """A shard as these have it, the table's or others that are made like them."""
        version = int(shards.versions[shard])
        if self.spec.kind == "sparse":
            return Copied(self, shard, version, *shards.rows(shard))
        values, state = shards.dense_rows(shard)
        buffer = self._room((1 + self.spec.slots) * self._cells)
        copied = buffer[: values.size].reshape(values.shape), buffer[self._cells :][: state.size].reshape(state.shape)
        copied[0][:], copied[1][:] = values, state
        return Copied(self, shard, version, None, *copied)

    def copy_aside(self, shard: int, shards: Shards) -> Copied | None:
        """The same beside this server's loop; None when the shard was written to meanwhile."""
        found = shards.read_aside(shard, self._room)
        return Copied(self, shard, *found) if found is not None else None

    def _room(self, cells: int) -> Array:
        if self.spec.kind == "sparse":
            return np.empty(cells, self.spec.dtype)
        try:
            return self._spare.pop()
        except IndexError:
            return np.empty(max(cells, (1 + self.spec.slots) * self._cells), self.spec.dtype)

    def give_back(self, copied: Copied) -> None:
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
