"""The server's role: messages in, shards changed or read, replies out."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mpips.checkpoint import CheckpointError, Generation
from mpips.checkpoint.write import ServerFile
from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.kernels.checksum import fletcher32
from mpips.messages import (
    Checkpoint,
    CreateTables,
    Failed,
    Load,
    Measure,
    Measured,
    PullKeys,
    PullReply,
    PullScan,
    PullTaken,
    PushKeys,
    PushRange,
    PushReply,
    Refused,
    Saved,
    TablesReady,
)
from mpips.rule import RuleError
from mpips.scheduler.ring import Ring
from mpips.scheduler.view import View
from mpips.server.shards import Shards
from mpips.table import TableSpec, header_offsets

REPORT_SECONDS = 1.0

Array = np.ndarray[Any, Any]
Wanted = tuple[int, int, int, str]  # offset, rows, width, dtype


def _rows(flat: Array, width: int) -> Array:
    """Keys stay (n,); values become (n, width)."""
    return flat if flat.dtype == np.uint64 else flat.reshape(-1, width)


class Server:
    """Registers the handlers of a server at a fabric; the rank's loop does the rest.

    Parameters
    ----------
    fabric, view : this rank's.
    run : the run folder, where checkpoints go; None for a job without any.
    threads : kernels that may run at once.
    """

    def __init__(self, fabric: Fabric, view: View, run: Path | None, threads: int) -> None:
        self.tables: list[Shards] = []
        self._fabric = fabric
        self._view = view
        self._run = run
        self._threads = threads
        self._queues: dict[int, deque[Callable[[Callable[[], None]], None]]] = {}
        self._answers: dict[tuple[int, int], int] = {}
        self._saving: Iterator[bool] | None = None
        self._pushes = 0
        self._reported = (fabric.now(), fabric.busy_seconds)
        fabric.on(CreateTables, self._create)
        fabric.on(PushKeys, self._push_keys)
        fabric.on(PushRange, self._push_range)
        fabric.on(PullKeys, self._pull_keys)
        fabric.on(PullScan, self._pull_scan)
        fabric.on(PullTaken, self._taken)
        fabric.on(Measure, self._measure)
        fabric.on(Checkpoint, self._checkpoint)
        fabric.background += [self._save_step, self._report]

    # --- tables -----------------------------------------------------------------------------------------------------

    def _create(self, source: int, message: CreateTables) -> None:
        error = None
        try:
            if not self.tables:
                self._hold(message.tables)
            if message.restore is not None:
                self._restore(Path(message.restore))
        except CheckpointError as problem:
            error = str(problem)
        except ArenaFull as problem:
            self._fabric.send(source, Failed(f"server {self._fabric.rank} has no room for its tables: {problem}"))
            return
        except RuleError as problem:
            self._fabric.send(source, Failed(str(problem)))
            return
        self._fabric.send(source, TablesReady(error))

    def _hold(self, tables: list[TableSpec]) -> None:
        ring = Ring(self._view.servers, self._view.nodes)
        offsets = header_offsets(tables)
        self._fabric.space.allocate(offsets[-1])  # the first stretch handed out, so it begins at 0
        for spec, headers in zip(tables, offsets, strict=False):
            shards = Shards(spec, headers, self._fabric.arena, self._fabric.space, self._threads)
            shards.hold(shard for shard in range(spec.shards) if ring.head(spec.name, shard) == self._fabric.rank)
            shards.warm()
            self.tables.append(shards)
        fletcher32(np.zeros(2, np.uint16))  # compiled, or loaded, before the first checkpoint has to wait for it

    def _restore(self, path: Path) -> None:
        for shards in self.tables:
            shards.clear()  # of what a generation that turned out damaged has left
        with Generation(path) as generation:
            for shards in self.tables:
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

    # --- push -------------------------------------------------------------------------------------------------------

    def _push_keys(self, source: int, message: PushKeys) -> None:
        spec = self.tables[message.table].spec
        keys = (message.keys, message.count, 1, "uint64")
        values = (message.values, message.count, spec.width, spec.dtype)
        self._read(
            source, [keys, values], lambda read: self._apply(source, message, self.tables[message.table].push, *read)
        )

    def _push_range(self, source: int, message: PushRange) -> None:
        shards = self.tables[message.table]
        values = (message.values, message.hi - message.lo, shards.spec.width, shards.spec.dtype)
        push = partial(shards.push_range, message.lo, message.hi)
        self._read(source, [values], lambda read: self._apply(source, message, push, *read))

    def _apply(self, source: int, message: PushKeys | PushRange, push: Callable[..., None], *read: Array) -> None:
        clocks = self.tables[message.table].clocks
        if message.time > clocks.get(source, 0):
            try:
                push(*read)
            except Error as problem:
                self._fabric.send(source, Refused(message.time, str(problem)))
                return
            clocks[source] = message.time
            self._pushes += 1
        self._fabric.send(source, PushReply(message.time))

    def _read(self, source: int, wanted: list[Wanted], then: Callable[[list[Array]], None]) -> None:
        """Read arrays from a worker's arena: at once on this node; from another, in the order of its messages."""
        if self._fabric.place(source) is not None:
            then([_rows(self._fabric.values(source, at, n * width, dtype), width) for at, n, width, dtype in wanted])
            return
        queue = self._queues.setdefault(source, deque())

        def begin(end: Callable[[], None]) -> None:
            arrays = [_rows(np.empty(n * width, dtype), width) for _, n, width, dtype in wanted]
            left = [len(arrays)]

            def arrived() -> None:
                left[0] -= 1
                if left[0] == 0:
                    then(arrays)
                    end()

            for (at, _, _, _), array in zip(wanted, arrays, strict=True):
                self._fabric.fetch(source, at, array, arrived)

        def end() -> None:
            queue.popleft()
            if queue:
                queue[0](end)

        queue.append(begin)
        if len(queue) == 1:
            begin(end)

    # --- pull from another node -------------------------------------------------------------------------------------

    def _pull_keys(self, source: int, message: PullKeys) -> None:
        shards = self.tables[message.table]
        spec = shards.spec

        def answer(read: list[Array]) -> None:
            values = np.zeros((message.count, spec.width), spec.dtype)
            shards.pull(read[0], values)
            self._leave(source, message.time, message.count, [values])

        self._read(source, [(message.keys, message.count, 1, "uint64")], answer)

    def _pull_scan(self, source: int, message: PullScan) -> None:
        keys, values = self.tables[message.table].scan(message.lo, message.hi)
        self._leave(source, message.time, keys.size, [keys, values])

    def _leave(self, source: int, time: int, count: int, arrays: list[Array]) -> None:
        """Leave an answer in the own arena until it is taken."""
        try:
            slot = self._fabric.space.allocate(sum(array.nbytes for array in arrays))
        except Error as problem:
            self._fabric.send(source, Refused(time, str(problem)))
            return
        at = slot
        for array in arrays:
            self._fabric.arena[at : at + array.nbytes] = array.view(np.uint8).reshape(-1)
            at += array.nbytes
        self._answers[source, time] = slot
        self._fabric.send(source, PullReply(time, count, slot, at - arrays[-1].nbytes))

    def _taken(self, source: int, message: PullTaken) -> None:
        self._fabric.space.free(self._answers.pop((source, message.time)))

    # --- the course of the job --------------------------------------------------------------------------------------

    def _measure(self, source: int, message: Measure) -> None:
        self._fabric.send(source, Measured(message.epoch, {t.spec.name: t.nonzeros() for t in self.tables}))

    def _report(self) -> bool:
        now = self._fabric.now()
        since, busy = self._reported
        if now - since >= REPORT_SECONDS and self.tables:
            self._reported = now, self._fabric.busy_seconds
            share = (self._fabric.busy_seconds - busy) / (now - since)
            self._fabric.send(self._view.scheduler, Load(share, self._pushes, self._fabric.space.used))
        return False

    def _checkpoint(self, source: int, message: Checkpoint) -> None:
        assert self._run is not None
        self._saving = self._save(source, message.generation, self._run)

    def _save_step(self) -> bool:
        if self._saving is None:
            return False
        for wrote in self._saving:
            return wrote
        self._saving = None
        return True

    def _save(self, source: int, generation: int, run: Path) -> Iterator[bool]:
        """Write the own shards, one a step, so that pushes are served in between; a step says whether it wrote."""
        error = None
        try:
            file = ServerFile(run, generation, self._fabric.rank)
            for shards in self.tables:
                for shard in shards.held:
                    if shards.spec.kind == "dense":
                        file.dense(shards.spec, shard, *shards.dense_rows(shard))
                    else:
                        file.sparse(shards.spec, shard, *shards.rows(shard))
                    yield True
            file.clocks({shards.spec.name: shards.clocks for shards in self.tables})
            done = self._fabric.aside(file.close)
            while not done.done():
                yield False
            done.result()
        except CheckpointError as problem:
            error = str(problem)
        self._fabric.send(source, Saved(generation, error))
