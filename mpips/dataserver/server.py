"""The data server's role: has its part of the data read, then keeps batches ready in its arena for whoever asks."""

import os
from collections import OrderedDict, deque
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from mpips.dataserver.batch import Batch
from mpips.dataserver.dictionary import Dictionary
from mpips.dataserver.source import Prepared, prepare
from mpips.dataserver.spec import DataSpec
from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.messages import (
    BatchReady,
    BatchRequest,
    BatchTaken,
    DataReady,
    DictionaryPart,
    DictionaryTaken,
    DictionaryWhole,
    Failed,
    Note,
)
from mpips.scheduler.line import Line

NAMES_FILE = "names.h5"
RETRY_SECONDS = 5.0


class DataServer:
    """Registers the handlers of a data server at a fabric, and begins to read.

    Batches stay in the arena after they were used, for the next epoch, and give way, least recently used first, when
    others need the room.

    Parameters
    ----------
    fabric : this rank's.
    peers : ranks of all data servers; this rank is one of them.
    line : to the scheduler.
    spec, base : what to read, relative to which folder.
    run : the run folder, where the names of the features go; None for a job that leaves no files.
    """

    def __init__(
        self, fabric: Fabric, peers: list[int], line: Line, spec: DataSpec, base: Path, run: Path | None
    ) -> None:
        self._fabric = fabric
        self._peers = peers
        self._line = line
        self._run = run
        self._prepared: Prepared | None = None
        self._dictionary: Dictionary | None = None
        self._parts: dict[int, Dictionary] = {}
        self._nameless: Dictionary | None = None
        self._try_at = 0.0
        self._slot: int | None = None
        self._untaken: set[int] = set()
        self._ready: OrderedDict[int, tuple[int, int]] = (
            OrderedDict()
        )  # batch → offset, size; least recently used first
        self._in_use: dict[int, int] = {}
        self._queue: deque[tuple[int, int]] = deque()
        fabric.on(BatchRequest, self._requested)
        fabric.on(BatchTaken, self._taken)
        fabric.on(DictionaryPart, self._part)
        fabric.on(DictionaryWhole, self._whole)
        fabric.on(DictionaryTaken, self._dictionary_taken)
        part = peers.index(fabric.rank)
        self._reading: Future[Prepared] | None = fabric.aside(lambda: prepare(spec, base, part, len(peers)))
        fabric.background += [self._read_step, self._save_names]

    # --- reading, and one dictionary for all ------------------------------------------------------------------------

    def _read_step(self) -> bool:
        if self._reading is None or not self._reading.done():
            return False
        reading, self._reading = self._reading, None
        try:
            self._prepared = reading.result()
            dictionary = self._prepared.dictionary
            if dictionary is None:
                self._announce(self._prepared.features, [])
            elif self._fabric.rank == self._peers[0]:
                self._merge(self._fabric.rank, dictionary)
            else:
                offset, size = self._leave(dictionary)
                self._fabric.send(self._peers[0], DictionaryPart(offset, size))
        except Error as error:
            self._line.tell(Failed(str(error)))
        return True

    def _leave(self, dictionary: Dictionary) -> tuple[int, int]:
        blob = dictionary.pack()
        self._slot = self._fabric.space.allocate(blob.size)
        self._fabric.arena[self._slot : self._slot + blob.size] = blob
        return self._slot, blob.size

    def _part(self, source: int, message: DictionaryPart) -> None:
        blob = np.empty(message.size, np.uint8)
        self._fabric.fetch(source, message.offset, blob, lambda: self._merge(source, Dictionary.unpack(blob)))

    def _merge(self, source: int, part: Dictionary) -> None:
        self._parts[source] = part
        if len(self._parts) < len(self._peers):
            return
        try:
            whole = Dictionary.merge([self._parts[peer] for peer in self._peers])
            self._parts.clear()
            self._nameless = whole if self._run is not None else None
            others = [peer for peer in self._peers if peer != self._fabric.rank]
            if others:
                offset, size = self._leave(whole)
                self._untaken = set(others)
                for peer in others:
                    self._fabric.send(peer, DictionaryWhole(offset, size))
        except Error as error:
            self._line.tell(Failed(f"the names of the features: {error}"))
            return
        self._use(whole)

    def _save_names(self) -> bool:
        """Write the names of the features beside the checkpoints; tried again while that fails."""
        if self._nameless is None or self._run is None or self._fabric.now() < self._try_at:
            return False
        path = self._run / NAMES_FILE
        try:
            self._nameless.save(path)
            self._nameless = None
        except OSError as error:
            path.unlink(missing_ok=True)
            self._try_at = self._fabric.now() + RETRY_SECONDS
            reason = os.strerror(error.errno) if error.errno else str(error)
            self._line.tell(Note(f"{path}: {reason}: the names of the features are not saved yet"))
        return True

    def _whole(self, source: int, message: DictionaryWhole) -> None:
        assert self._slot is not None
        self._fabric.space.free(self._slot)
        blob = np.empty(message.size, np.uint8)

        def arrived() -> None:
            self._fabric.send(source, DictionaryTaken())
            self._use(Dictionary.unpack(blob))

        self._fabric.fetch(source, message.offset, blob, arrived)

    def _dictionary_taken(self, source: int, message: DictionaryTaken) -> None:
        self._untaken.discard(source)
        if not self._untaken and self._slot is not None:
            self._fabric.space.free(self._slot)

    def _use(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._announce(dictionary.keys.size, [(lo, hi) for _, lo, hi in dictionary.blocks])

    def _announce(self, features: int, groups: list[tuple[int, int]]) -> None:
        data = self._prepared
        assert data is not None
        self._line.tell(
            DataReady(data.train, data.test, data.train_rows, data.test_rows, data.skipped, features, groups)
        )

    # --- batches ----------------------------------------------------------------------------------------------------

    def _requested(self, source: int, message: BatchRequest) -> None:
        self._queue.append((source, message.batch))
        self._serve()

    def _serve(self) -> None:
        while self._queue:
            source, batch = self._queue[0]
            if batch not in self._ready:
                try:
                    if not self._load(batch):
                        return  # all that is here is in use: goes on when something is taken
                except (Error, OSError) as error:
                    self._line.tell(Failed(f"batch {batch} of data server {self._fabric.rank}: {error}"))
                    return
            self._queue.popleft()
            self._ready.move_to_end(batch)
            self._in_use[batch] = self._in_use.get(batch, 0) + 1
            self._fabric.send(source, BatchReady(batch, *self._ready[batch]))

    def _load(self, batch: int) -> bool:
        """Bring a batch into the arena; False while there is no room for it."""
        assert self._prepared is not None
        size = int(self._prepared.sizes[batch])
        while True:
            try:
                offset = self._fabric.space.allocate(size)
                break
            except ArenaFull:
                idle = next((old for old in self._ready if old not in self._in_use), None)
                if idle is None:
                    if not self._in_use:
                        raise
                    return False
                self._fabric.space.free(self._ready.pop(idle)[0])
        blob = self._fabric.arena[offset : offset + size]
        self._prepared.read(batch, blob)
        if self._dictionary is not None:
            keys = Batch.unpack(blob).keys
            keys[:] = self._dictionary.ids(keys)
        self._ready[batch] = offset, size
        return True

    def _taken(self, source: int, message: BatchTaken) -> None:
        self._in_use[message.batch] -= 1
        if not self._in_use[message.batch]:
            del self._in_use[message.batch]
        self._serve()
