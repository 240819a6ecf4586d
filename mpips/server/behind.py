"""What copies on their way lack of a table's shards: some shards whole, of others the rows that have changed since."""

from collections.abc import Iterable

import numpy as np

from mpips.kernels.copies import note
from mpips.kernels.partition import positions
from mpips.server.rows import Array
from mpips.table import TableSpec

NO_COPY = -1  # as the number of the last change of a copy that is not there, or can't be gone on with
MOST = 1 << 20  # keys that are noted; beyond it their shards are rather sent whole again


class Behind:
    """One for each table that a server has shards of. Pure.

    A row may have changed many times until it is sent as it has become, so what is noted is bounded, and nobody who
    pushes waits for it.

    Attributes
    ----------
    begun : (shards,) bool, whether a server that is getting its copy of a shard from this one has been sent that, so
        that it lacks some rows at most.
    any_begun : whether one has.
    whole : shards that are to be sent whole, in that order, with the number of the copy that the other has.
    """

    def __init__(self, spec: TableSpec) -> None:
        self.begun = np.zeros(spec.shards, np.bool_)
        self.any_begun = False
        self.whole: dict[int, int] = {}
        self._spec = spec
        self._stale = np.zeros(spec.shards, np.bool_)
        self._keys = np.empty(0, np.uint64)
        self._count = 0

    @property
    def lacks(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.whole) or self.lacks_rows

    @property
    def lacks_rows(self) -> bool:
        """Whether shards have changed that were sent."""
        return self.any_begun and bool((self._stale & self.begun).any())

    def want(self, shard: int, number: int) -> None:
        """A server that has the copy of a shard with this number wants it whole."""
        self.begun[shard] = False
        self.whole[shard] = number

    def sent(self, shard: int) -> None:
        """A shard has been sent whole."""
        self.begun[shard] = self.any_begun = True
        self._stale[shard] = False

    def changed(self, touched: Array, starts: Array, keys: Array | None) -> None:
        """Rows of some shards, ``touched`` (m,) int64, have changed: those of keys (n,) uint64, of which each shard's
        begin at `starts` (m + 1,); or any of them.
        """
        if not self.any_begun:
            return
        if keys is None:
            self.again(touched.tolist())
            return
        count = self._note(touched, starts, keys)
        if count > self._keys.size:
            self._gather()
            if self._count > MOST // 2:
                self.again(np.flatnonzero(self._stale).tolist())
                self._count = 0
            self._keys = np.resize(self._keys, min(MOST, 2 * count))
            count = self._note(touched, starts, keys)
        if count > self._keys.size:
            self.again(touched.tolist())
        else:
            self._count = count

    def _note(self, touched: Array, starts: Array, keys: Array) -> int:
        count: int = note(keys, touched, starts, self.begun, self._stale, self._keys, self._count)
        return count

    def again(self, shards: Iterable[int]) -> None:
        """Some shards have changed altogether: as far as they were sent, they are sent once more."""
        for shard in shards:
            if self.begun[shard]:
                self.begun[shard] = False
                self.whole[shard] = NO_COPY

    def take(self, most: int) -> tuple[Array, Array, Array]:
        """Shards (m,) int64 that have changed, ascending; where the keys of each begin (m + 1,); and the keys (n,)
        uint64 of the rows that have: so many at most, but of one shard all. They are sent now.
        """
        keys = self._gather()
        of = self._shards(keys)
        lack = self._stale & self.begun
        keys, of = keys[lack[of]], of[lack[of]]  # the others have been sent whole since, or will be
        order = np.argsort(of, kind="stable")
        keys, of = keys[order], of[order]
        touched = np.flatnonzero(lack)
        starts = np.append(np.searchsorted(of, touched), keys.size)
        count = max(1, int(np.searchsorted(starts, most, side="right")) - 1)
        touched, starts = touched[:count], starts[: count + 1]
        self._stale[touched] = False
        self._count = int(keys.size - starts[-1])
        self._keys[: self._count] = keys[starts[-1] :]
        return touched, starts, keys[: starts[-1]]

    def keep(self, same: Array) -> None:
        """Go on with those shards, ``same`` (shards,) bool, whose copies go where they went before."""
        self.begun &= same
        self.any_begun = bool(self.begun.any())
        self.whole = {shard: number for shard, number in self.whole.items() if same[shard]}
        if not self.any_begun:
            self._keys, self._count = np.empty(0, np.uint64), 0

    def _gather(self) -> Array:
        """The keys that are noted (n,), each once."""
        keys = np.unique(self._keys[: self._count])
        self._count = keys.size
        self._keys[: keys.size] = keys
        return keys

    def _shards(self, keys: Array) -> Array:
        spec = self._spec
        if spec.kind == "dense":
            return (keys >> np.uint64(spec.shard_bits)).astype(np.int64)
        shards: Array = positions(keys, False, spec.shard_bits)
        return shards
