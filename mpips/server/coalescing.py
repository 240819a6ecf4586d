"""Changes of tables from the head of their shards to the copies: those of one round, in which a server does what has
come for it, go together, a row that several have changed but once.

So a busy server sends fewer changes, and the copies have less to do, while a lone push waits for nothing. What is sent
are rows as they are then; so whatever has changed them by then must be told of with them.
"""

from collections.abc import Callable
from typing import NamedTuple

from mpips.fabric import Fabric
from mpips.kernels.merge import union
from mpips.server.clock import Entry
from mpips.server.copies import Copies
from mpips.server.rows import Array
from mpips.tasks.countdown import Then


class Applied(NamedTuple):
    """Pushes that the head has applied.

    Parameters
    ----------
    lo, hi : the positions that they cover, ``[lo, hi)``.
    keys : (n,) uint64, the rows that have changed, grouped by shard; None: every row of ``[lo, hi)`` that is led.
    steps : whose and which they are.
    whole_range : whether the clocks of shards none of whose rows have changed go on, too.
    """

    lo: int
    hi: int
    keys: Array | None
    steps: list[Entry]
    whole_range: bool


class Coalescing:
    """One for each server.

    Parameters
    ----------
    fabric, tables : this server's.
    send : called with the number of a table, with what rows of it have become, sends them to all copies, and calls what
        it is given when they have them.
    """

    def __init__(self, fabric: Fabric, tables: list[Copies], send: Callable[[int, Applied, Then], None]) -> None:
        self._tables = tables
        self._send = send
        self._waiting: dict[int, list[tuple[Applied, Then]]] = {}
        fabric.background.append(self.flush)

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def make_way(self, table: int) -> None:
        """Rows are going to be written to: what waits must not have that in it."""
        waiting = self._waiting.pop(table, None)
        if waiting is None:
            return

        def then() -> None:
            for _, each in waiting:
                each()

        self._send(table, self._together(table, [applied for applied, _ in waiting]), then)

    def make_way_for_push(self, table: int, lo: int, hi: int, keys: Array | None) -> None:
        """A push is going to be applied: what waits must not have that in it, unless both can go together."""
        waiting = self._waiting.get(table)
        if waiting is not None:
            first = waiting[0][0]
            if (lo, hi, keys is None) != (first.lo, first.hi, first.keys is None):
                self.make_way(table)

    def add(self, table: int, applied: Applied, then: Then) -> None:
        """Have a push wait for which way was made; `then` is for when every copy has it."""
        self._waiting.setdefault(table, []).append((applied, then))

    def flush(self) -> bool:
        """Send all that waits; whether there was anything."""
        if not self._waiting:
            return False
        for table in list(self._waiting):
            self.make_way(table)
        return True

    def _together(self, table: int, several: list[Applied]) -> Applied:
        first, *others = several
        if not others:
            return first
        spec, keys = self._tables[table].shards.spec, first.keys
        last: dict[tuple[int, int, int], int] = {}
        for applied in others:
            if keys is not None:
                assert applied.keys is not None
                keys = union(keys, applied.keys, spec.shard_bits if spec.kind == "sparse" else 0)
        for applied in several:
            for identity, lo, hi, step in applied.steps:
                last[identity, lo, hi] = max(step, last.get((identity, lo, hi), step))
        return first._replace(keys=keys, steps=[(*where, step) for where, step in last.items()])
