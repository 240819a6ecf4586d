"""What a worker sends to the servers of a table: packed by the table's filters, laid into its own arena, counted."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mpips.fabric import ArenaFull, Fabric
from mpips.filters import Chain, Direction, Wire
from mpips.filters.base import Packet
from mpips.filters.of_table import chain_of, kkt_of
from mpips.messages import Coded, Traffic
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.worker.keys import Placement

Array = np.ndarray[Any, Any]
TO_SERVERS: tuple[Direction, ...] = ("push", "request")  # answers are all decoded, also those that come too late


class Laid(NamedTuple):
    """A packet in the arena: where its keys and values are, how many entries, how filters packed them, and what it
    would be without those that only make it smaller.
    """

    keys: int
    values: int
    entries: int
    coded: Coded | None
    plain: Packet


class Outgoing:
    """One for each table of a worker.

    Parameters
    ----------
    spec : the table.
    fabric, issued : this worker's.

    Attributes
    ----------
    kkt : the KKT filter of pushes, if the table has one.
    filters_pushes, filters_pulls : whether there are other filters.
    fetched : bytes read one-sidedly from servers on other nodes.
    alone : whether there is one node only, and so nothing to count.
    """

    def __init__(self, spec: TableSpec, fabric: Fabric, issued: Issued) -> None:
        self.kkt = kkt_of(spec)
        self.filters_pushes = len(spec.push_filters) > (self.kkt is not None)
        self.filters_pulls = bool(spec.pull_filters)
        self.fetched = 0
        self._spec = spec
        self._fabric = fabric
        self._issued = issued
        self._chains: dict[tuple[int, Direction], Chain] = {}
        self._plain = 0
        self.alone = len(set(fabric.nodes)) == 1

    def chain(self, server: int, direction: Direction) -> Chain:
        """The filters between this worker and a server."""
        found = self._chains.get((server, direction))
        if found is None:
            near = self._fabric.place(server) is not None
            found = chain_of(self._spec, direction, near, self._fabric.rank << 20 | server)
            self._chains[server, direction] = found
        return found

    def viewed(self, placement: Placement, servers: Iterable[int]) -> None:
        """Begin again with these servers, which have other shards now or are dead: they may not take what was encoded
        last for them. What was held back for their shards is held back for those that have them.
        """
        for server in servers:
            for direction in TO_SERVERS:
                if (server, direction) in self._chains:
                    self._chains[server, direction].forget()
        held_back = [
            self._chains[server, "push"]["significance"].held_back()
            for server in servers
            if (server, "push") in self._chains and "significance" in self._chains[server, "push"]
        ]
        if not held_back:
            return
        keys, updates = (np.concatenate(parts) for parts in zip(*held_back, strict=True))
        heads = placement.heads_of(keys)
        for head in np.unique(heads).tolist():
            self.chain(head, "push")["significance"].hold_back(keys[heads == head], updates[heads == head])

    def lay(self, task: Task[Any], direction: Direction, parts: dict[int, tuple[Array, Array]]) -> dict[int, Laid]:
        """Pack what goes to each server, keys (n,) and values (n, width), and lay it into the arena until the task is
        over.
        """
        wires = {server: self.chain(server, direction).encode(*part) for server, part in parts.items()}

        def begin_again() -> None:
            for server in parts:
                self.chain(server, direction).forget()

        try:
            slot = self._issued.room(sum(_room(wire) for wire in wires.values()))
        except ArenaFull:
            begin_again()
            raise

        def ended() -> None:
            self._fabric.space.free(slot)
            if task.error is not None and not task.time:  # what was encoded has not been sent
                begin_again()

        task.on_end(ended)
        at, laid = slot, {}
        for server, wire in wires.items():
            assert not isinstance(wire.keys, range)
            middle = at + wire.keys.nbytes
            self._fabric.arena[at:middle] = wire.keys
            self._fabric.arena[middle : middle + wire.values.nbytes] = wire.values
            far = self._fabric.place(server) is None
            coded = Coded(wire.keys.nbytes, wire.values.nbytes, wire.notes) if far else None
            laid[server] = Laid(at, middle, wire.count, coded, wire.plain)
            at += _room(wire)
        return laid

    def count(self, server: int, size: int) -> None:
        """Count bytes that go to a server without filters, if it is on another node."""
        if not self.alone and self._fabric.place(server) is None:
            self._plain += size

    def traffic(self) -> Traffic:
        """All of it up to now."""
        far = [chain for (server, _), chain in self._chains.items() if self._fabric.place(server) is None]
        parts = [Traffic(chain.raw, chain.sent, chain.saved()) for chain in far]
        if self.kkt is not None and (self._plain or far):
            kept_back = self.kkt.dropped_entries * (8 + self._spec.push_width * self._spec.itemsize)
            parts.append(Traffic(kept_back, 0, {"kkt": kept_back}))
        return Traffic.total([Traffic(self._plain, self._plain, {}, self.fetched), *parts])


def _room(wire: Wire) -> int:
    assert not isinstance(wire.keys, range)
    return (wire.keys.nbytes + wire.values.nbytes + 7) & ~7
