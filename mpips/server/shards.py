"""The shards of one table that a server holds, in its arena: values and update state, and no second copy."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from numba.core.errors import NumbaError

from mpips.errors import Error
from mpips.fabric.arena import Allocator
from mpips.kernels import header, sparse
from mpips.kernels.apply import loops
from mpips.kernels.copies import all_follow, count_for, group_starts, note, pack, starts_of, write_dense
from mpips.kernels.gather import flag_dense, gather_dense, gather_sparse, read_range
from mpips.kernels.merge import union
from mpips.kernels.partition import positions, shard_of, shard_starts
from mpips.rule import RuleError, make
from mpips.server.blocks import Blocks
from mpips.server.clock import RangeClock
from mpips.server.updates import Updates
from mpips.table import TableSpec

THREADED_ROWS = 1 << 15

Array = np.ndarray[Any, Any]


class NotHeld(Error, KeyError):
    """A push for a shard that lives on another server."""

    __str__ = Exception.__str__


class Shards(Blocks):
    """Create with the table's specification, then `hold` shards.

    Parameters
    ----------
    spec : the table.
    headers : arena offset of the table's first shard header.
    arena : (bytes,) uint8, this server's arena.
    space : hands out its stretches.
    threads : kernels that may run at once, each on shards of its own.

    Attributes
    ----------
    held, numbers : as `Blocks`.
    led : ascending, those of them that this server is the head of: whose pushes it takes, and whom functions run on.
    clock : which pushes are applied to the shards that are led.
    """

    def __init__(self, spec: TableSpec, headers: int, arena: Array, space: Allocator, threads: int = 1) -> None:
        super().__init__(spec, headers, arena, space)
        self.lead([])
        self.clock = RangeClock(spec.positions)
        self._rule = make(spec.rule)
        self._loops = loops(self._rule)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._threads = threads
        self._growing = Lock()
        self._local = np.empty((spec.shards, 2), np.int64)
        self._local[:, 0] = self._headers + np.arange(spec.shards) * header.WORDS
        self._local[:, 1] = 0

    def lead(self, shards: list[int]) -> None:
        """From now on this server is the head of these, ascending."""
        self.led = shards
        self._led = np.array(shards, np.int64)

    def warm(self) -> None:
        """Compile the rule's loops, or load them from numba's cache: not at the first push.

        Raises
        ------
        RuleError
            when numba can't compile a user's rule.
        """
        spec, no_keys = self.spec, np.empty(0, np.uint64)
        no_rows = np.empty((0, spec.push_width), spec.dtype)
        shape = (self._rule, self._words, self._cells, self._headers, no_keys, no_rows, self._bits, spec.width)
        try:
            if spec.kind == "sparse":
                self._loops.sparse(*shape, spec.slots, self._stride, 0)
                if any(each.get("name") == "key_cache" for each in spec.push_filters):
                    no_keys.flags.writeable = False  # as the lists are that come from there
                    rows, sizes = np.empty(0, np.int64), (self._bits, spec.width, spec.slots)
                    self._loops.rows(*shape[:4], no_keys, rows, no_rows, *sizes)
                    self._resolved.rows(no_keys)
                return
            self._loops.dense(*shape, spec.slots, spec.shards)
            state = self._cells[:0].reshape(0, spec.slots)
            self._loops.range(self._rule, self._words, self._headers, self._cells[:0], state, no_rows.reshape(-1))
        except NumbaError as error:
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            what = next((line for line in said if "Invalid use" in line or "No implementation" in line), said[0])
            raise RuleError(f'update rule "{spec.rule["name"]}" does not compile in numba: {what}') from error

    def warm_for_copies(self) -> None:
        """Compile, or load, what copies take: the first push after a server has died is to wait for none of it."""
        spec, no_keys = self.spec, np.empty(0, np.uint64)
        values, state = np.empty((0, spec.width), spec.dtype), np.empty((0, spec.width * spec.slots), spec.dtype)
        self.touched(0, 0, no_keys, whole_range=spec.aggregate)
        positions(no_keys, spec.kind == "dense", self._bits)
        union(no_keys, no_keys, self._bits if spec.kind == "sparse" else 0)
        shards, starts = self.touched(0, 0, no_keys)
        self.pack(no_keys, shards, starts, shards, 0, count_for(shards, starts, 0), np.zeros(8, np.uint8))
        note(no_keys, shards, starts, np.zeros(0, np.bool_), np.zeros(0, np.bool_), no_keys, 0)
        all_follow(shards, shards, self.numbers, self.numbers, self.numbers, 0, 0)
        if spec.kind == "dense":
            self.write_rows(no_keys, values, state)
            header.block_of(0)
            return
        sparse.load(self._words, self._cells, self._headers, no_keys, values, state, self._bits, self._stride, 0)
        if self.held:
            self.rows(self.held[0])

    def last_pushes(self) -> dict[int, int]:
        """By worker, the last of its pushes that is applied wherever it pushes to."""
        return {worker: self.clock.time(worker, 0, self.spec.positions) for worker, *_ in self.clock.entries()}

    def clear(self) -> None:
        """Make all shards as empty as new ones."""
        self.clock.forget()
        self._resolved.forget()
        for shard in self.held:
            self.clear_shard(shard)

    # --- push -------------------------------------------------------------------------------------------------------

    def runs(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """Those of the rows ``[lo, hi)`` of a dense table that are led, as ranges ``[start, end)``."""
        found: list[tuple[int, int]] = []
        for shard in self.in_range(lo, hi):
            first, last = self.spec.shard_range(shard)
            start, end = max(lo, first), min(hi, last)
            if found and found[-1][1] == start:
                start = found.pop()[0]
            found.append((start, end))
        return found

    def apply(
        self, lo: int, hi: int, keys: Array | None, updates: Updates, others: Mapping[str, float] | None = None
    ) -> None:
        """Apply a push: to the rows ``[lo, hi)`` of a dense table that are led, or to a list of keys; `others` are
        parameters of the rule that are others for this one.

        Raises
        ------
        NotHeld, ArenaFull
            as `push`.
        """
        rule = self._rule._replace(**others) if others else self._rule
        if keys is None:
            self.push_range(lo, hi, updates, rule)
        else:
            assert isinstance(updates, np.ndarray)
            self.push(keys, updates, rule)

    def push(self, keys: Array, updates: Array, rule: Any = None) -> None:
        """Apply a rule, by default the table's, to keys (n,) uint64, grouped by shard, with updates (n, width·inputs).

        Raises
        ------
        NotHeld
            when a key's shard lives elsewhere.
        ArenaFull
            when a sparse table can't grow.
        """
        rows = self._resolved.rows(keys) if self.spec.kind == "sparse" else None
        rule = self._rule if rule is None else rule
        if self._pool is None or keys.size < THREADED_ROWS:
            self._push(rule, keys, updates, rows)
            return
        cuts = shard_starts(keys, self.spec.kind == "dense", self._bits, self._threads)
        parts = [(keys[a:b], updates[a:b], None if rows is None else rows[a:b]) for a, b in pairwise(cuts) if b > a]
        for _ in self._pool.map(lambda part: self._push(rule, *part), parts):
            pass

    def _push(self, rule: Any, keys: Array, updates: Array, rows: Array | None) -> None:
        spec = self.spec
        if rows is not None:
            self._loops.rows(
                rule, self._words, self._cells, self._headers, keys, rows, updates,
                self._bits, spec.width, spec.slots,
            )  # fmt: skip
            return
        if spec.kind == "dense":
            done = self._loops.dense(
                rule,
                self._words,
                self._cells,
                self._headers,
                keys,
                updates,
                self._bits,
                spec.width,
                spec.slots,
                spec.shards,
            )
            if done < keys.size:
                raise NotHeld(f'table "{spec.name}": row {keys[done]} is not held here')
            return
        done = 0
        while done < keys.size:
            done = self._loops.sparse(
                rule, self._words, self._cells, self._headers, keys, updates,
                self._bits, spec.width, spec.slots, self._stride, done,
            )  # fmt: skip
            if done < keys.size:
                self._make_room(keys[done])

    def _make_room(self, key: Any) -> None:
        shard = int(shard_of(key, False, self._bits))
        if self._header(shard)[header.LOCATION] == 0:
            raise NotHeld(f'table "{self.spec.name}": key {key} is not held here')
        with self._growing:
            self._grow(shard)

    def push_range(self, lo: int, hi: int, updates: Updates, rule: Any = None) -> None:
        """Apply a rule, by default the table's, to those of the rows ``[lo, hi)`` of a dense table that are led, with
        updates (hi - lo, width·inputs).
        """
        spec, rule = self.spec, self._rule if rule is None else rule
        mine = self.in_range(lo, hi)

        def one(shard: int) -> None:
            start, end = spec.shard_range(shard)
            a, b = max(lo, start), min(hi, end)
            values, state = self._block(shard)
            cells = slice((a - start) * spec.width, (b - start) * spec.width)
            head = self._headers + shard * header.WORDS
            self._loops.range(
                rule, self._words, head, values[cells], state[cells], updates[a - lo : b - lo].reshape(-1)
            )

        if self._pool is None or (hi - lo) * spec.width < THREADED_ROWS:
            for shard in mine:
                one(shard)
        else:
            for _ in self._pool.map(one, mine):
                pass

    # --- pull -------------------------------------------------------------------------------------------------------

    def pull(self, keys: Array, out: Array) -> None:
        """Copy the values of keys (n,) into `out` (n, width)."""
        spec, flat = self.spec, out.reshape(-1)
        if spec.kind == "dense":
            gather_dense(self._words, self._cells, self._local, self._bits, spec.width, keys, flat)
        else:
            gather_sparse(self._words, self._cells, self._local, self._bits, spec.width, self._stride, keys, flat)

    def above(self, keys: Array, slot: int, threshold: float) -> Array:
        """Whether a slot of the update state of rows (n,) of a dense table is above a threshold, (n,) bool."""
        spec, flags = self.spec, np.zeros(keys.size, np.bool_)
        flag_dense(
            self._words, self._cells, self._local, self._bits, spec.width, spec.slots, slot, threshold, keys, flags
        )
        return flags

    def scan(self, lo: int, hi: int | None) -> tuple[Array, Array]:
        """Keys (n,) in ``[lo, hi)``, unsorted, and values (n, width) of the shards of a sparse table that are led; `hi`
        None: no bound.
        """
        parts = [self.rows(shard, lo, hi, with_state=False) for shard in self.led]
        keys = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, np.uint64)
        values = (
            np.concatenate([part[1] for part in parts]) if parts else np.empty((0, self.spec.width), self.spec.dtype)
        )
        return keys, values

    # --- whole shards -----------------------------------------------------------------------------------------------

    def rows(
        self, shard: int, lo: int = 0, hi: int | None = None, with_state: bool = True
    ) -> tuple[Array, Array, Array]:
        """Keys (n,), values (n, width) and state (n, width, slots) of a sparse shard, copied."""
        spec = self.spec
        head = self._header(shard)
        where, count = int(head[header.LOCATION]), int(head[header.COUNT])
        keys = np.empty(count, np.uint64)
        values = np.empty((count, spec.width), spec.dtype)
        state = np.empty((count, spec.width * spec.slots) if with_state else (0, 0), spec.dtype)
        n = sparse.scan(
            self._words, self._cells, header.block_of(where) // 8, header.bits_of(where), self._stride,
            np.uint64(lo), np.uint64(hi or 0), hi is None, keys, values, state,
        )  # fmt: skip
        shape = (n if with_state else 0, spec.width, spec.slots)
        return keys[:n], values[:n], state[:n].reshape(shape)

    def count(self, shard: int) -> int:
        """Keys that a sparse shard has."""
        return int(self._header(shard)[header.COUNT])

    def dense_rows(self, shard: int) -> tuple[Array, Array]:
        """Values (n, width) and state (n, width, slots) of a dense shard, as views."""
        spec = self.spec
        lo, hi = spec.shard_range(shard)
        values, state = self._block(shard)
        cells = (hi - lo) * spec.width
        return values[:cells].reshape(hi - lo, spec.width), state[:cells].reshape(hi - lo, spec.width, spec.slots)

    def read_aside(self, shard: int, room: Callable[[int], Array]) -> tuple[int, Array | None, Array, Array] | None:
        """The version of a shard and what it has: keys if the table is sparse, values and state, copied beside this
        server's loop; None when it was written to meanwhile. `room` gives memory for so many cells.
        """
        spec, head = self.spec, self._header(shard)
        version, where, count = (int(head[i]) for i in (header.VERSION, header.LOCATION, header.COUNT))
        if where == 0:
            return None
        bits = header.bits_of(where)
        size = self._dense_bytes() if spec.kind == "dense" else sparse.block_bytes(bits, self._stride)
        cells = room(size // spec.itemsize)
        start = header.block_of(where) // spec.itemsize
        if not read_range(self._words, self._headers + shard * header.WORDS, self._cells, start, cells):
            return None
        if (int(head[header.VERSION]), int(head[header.LOCATION])) != (version, where):
            return None
        if spec.kind == "dense":
            lo, hi = spec.shard_range(shard)
            values, state = cells[: (hi - lo) * spec.width], cells[spec.shard_rows * spec.width :]
            shape = hi - lo, spec.width
            return version, None, values.reshape(shape), state[: values.size * spec.slots].reshape(*shape, spec.slots)
        keys = np.empty(count, np.uint64)
        values, state = (
            np.empty((count, spec.width), spec.dtype),
            np.empty((count, spec.width * spec.slots), spec.dtype),
        )
        words = cells.view(np.int64)
        everything = np.uint64(0), np.uint64(0), True
        sparse.scan(words, cells, 0, bits, self._stride, *everything, keys, values, state)
        return version, keys, values, state.reshape(count, spec.width, spec.slots)

    def load(self, blocks: Iterator[tuple[Array, Array, Array]]) -> None:
        """Fill a sparse table's shards from blocks of keys, values and state; keys of other servers' shards are
        passed over.
        """
        for keys, values, state in blocks:
            done, flat = 0, np.ascontiguousarray(state).reshape(keys.size, self.spec.width * self.spec.slots)
            while done < keys.size:
                done = sparse.load(
                    self._words, self._cells, self._headers, keys, values, flat, self._bits, self._stride, done
                )
                if done < keys.size:
                    self._make_room(keys[done])

    def nonzeros(self) -> int:
        """Values that are not zero, in the shards that are led."""
        if self.spec.kind == "dense":
            return sum(int(np.count_nonzero(self.dense_rows(shard)[0])) for shard in self.led)
        return sum(int(np.count_nonzero(self.rows(shard, with_state=False)[1])) for shard in self.led)

    # --- copies -----------------------------------------------------------------------------------------------------

    def in_range(self, lo: int, hi: int | None) -> list[int]:
        """The shards that are led and have any of the positions ``[lo, hi)``; `hi` None: no bound."""
        return self.led[self._which(lo, self.spec.positions if hi is None else hi)]

    def _which(self, lo: int, hi: int) -> slice:
        """Of the shards that are led those that have any of the positions ``[lo, hi)``."""
        first, end = (lo, hi) if self.spec.kind == "sparse" else (lo >> self._bits, ((hi - 1) >> self._bits) + 1)
        return slice(bisect_left(self.led, first), bisect_left(self.led, end))

    def touched(self, lo: int, hi: int, keys: Array | None, whole_range: bool = False) -> tuple[Array, Array]:
        """The shards (m,), ascending, that a push concerns, and where the rows of each begin among its own (m + 1,).

        Of a range, and of keys with `whole_range`, these are all the shards of ``[lo, hi)`` that are led.
        """
        if keys is None:
            mine = self._led[self._which(lo, hi)]
            sizes = np.minimum(hi, (mine + 1) << self._bits) - np.maximum(lo, mine << self._bits)
            return mine, np.concatenate(([0], np.cumsum(sizes)))
        dense = self.spec.kind == "dense"
        if whole_range:
            mine = self._led[self._which(lo, hi)]
            return mine, starts_of(keys, dense, self._bits, mine)
        most = min(keys.size, self.numbers.size)
        shards, starts = np.empty(most, np.int64), np.empty(most + 1, np.int64)
        count = group_starts(keys, dense, self._bits, shards, starts)
        return shards[:count], starts[: count + 1]

    def pack(
        self,
        keys: Array,
        touched: Array,
        starts: Array,
        after: Array,
        successor: int,
        counts: tuple[int, int],
        out: Array,
    ) -> None:
        """Pack the rows of a push that go to a server into bytes, as `Rows` has them.

        Parameters
        ----------
        keys : (n,) uint64, of the push.
        touched, starts : its shards (m,), and where the rows of each begin (m + 1,); see `touched`.
        after : (m,) int64, the server that each shard's rows go to.
        counts : how many shards and rows go to `successor`.
        """
        spec = self.spec
        pack(
            self._words, self._cells, self._headers, keys, touched, starts, self.numbers, after, successor, counts,
            spec.kind == "dense", self._bits, spec.width, spec.slots, self._stride,
            out.view(np.int64), out.view(spec.numpy_dtype),
        )  # fmt: skip

    def write_rows(self, keys: Array, values: Array, state: Array) -> None:
        """Make the rows of keys (n,), grouped by shard, what another copy has: `values` (n, width), `state` (n,
        width·slots).

        Raises
        ------
        NotHeld
            when a dense shard is not here.
        ArenaFull
            when a sparse table can't grow.
        """
        spec = self.spec
        if spec.kind == "dense":
            memory, sizes = (self._words, self._cells, self._headers), (spec.width, spec.slots, self.numbers.size)
            done = write_dense(*memory, keys, self._bits, *sizes, values.reshape(-1), state.reshape(-1))
            if done < keys.size:
                raise NotHeld(f'table "{spec.name}": row {keys[done]} is not held here')
        else:
            self.load(iter([(keys, values, state)]))

    def run(self, first: int, rows: int) -> tuple[Array, Array]:
        """Values (rows, width) and state (rows, width·slots) of neighbouring rows of a dense shard, as views."""
        spec = self.spec
        shard = first >> self._bits
        values, state = self._block(shard)
        cells = slice((first - (shard << self._bits)) * spec.width, (first - (shard << self._bits) + rows) * spec.width)
        return values[cells].reshape(rows, spec.width), state[cells].reshape(rows, spec.width * spec.slots)
