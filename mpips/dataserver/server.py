"""The data server's role: has its parts of the data read, then keeps batches ready in its arena for whoever asks."""

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpips.dataserver.batch import Batch
from mpips.dataserver.names import Names
from mpips.dataserver.part import Part
from mpips.dataserver.shelf import Shelf
from mpips.dataserver.source import prepare
from mpips.dataserver.spec import DataSpec
from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.line import Line
from mpips.messages import BatchReady, BatchRequest, BatchTaken, DataReady, Failed
from mpips.views.view import View


class Wanted(NamedTuple):
    """A batch of a part, as it is in an epoch; 0 where it is the same in all."""

    part: int
    batch: int
    epoch: int


class DataServer:
    """Registers the handlers of a data server at a fabric, and begins to read the parts that the view gives it.

    Batches stay in the arena after they were used, for the next epoch if they are the same there, and give way, least
    recently used first, when others need the room. A request may come twice, and before this rank knows that the part
    is its own: it waits until the part is read.

    Parameters
    ----------
    fabric, view : this rank's way to the others, and who does what.
    line : to the scheduler.
    spec, base : what to read, relative to which folder.
    run : the run folder, where the names of the features go; None for a job that leaves no files.
    threads : that make batches, where there is much to do.
    wanted : names of features whose keys the scheduler wants to know.
    """

    def __init__(
        self,
        fabric: Fabric,
        view: View,
        line: Line,
        spec: DataSpec,
        base: Path,
        run: Path | None,
        threads: int,
        wanted: Sequence[str] = (),
    ) -> None:
        self._fabric = fabric
        self._line = line
        self._spec = spec
        self._base = base
        self._wanted = wanted
        self._threads = threads
        self._reading: dict[int, Future[Part]] = {}
        self._prepared: dict[int, Part] = {}
        self._filling: dict[Wanted, Future[None]] = {}
        self._told: set[int] = set()  # parts whose reading the scheduler knows of
        self._queue: dict[tuple[int, int], Wanted] = {}  # by rank and its request, in order
        self._shelf = Shelf(fabric)
        self._names = Names(fabric, view, line, self._shelf, run, self._go_on) if spec.has_names else None
        fabric.on(BatchRequest, self._requested)
        fabric.on(BatchTaken, self._taken)
        fabric.background.append(self._read_step)
        self._read(view)

    def viewed(self, old: View, new: View) -> None:
        """Read the parts that this rank is newly given, let go of those that another has, and of what the dead held."""
        for rank in new.lost:
            self._shelf.forget(rank)
        mine = {part for part, rank in enumerate(new.parts) if rank == self._fabric.rank}
        for part in [part for part in self._prepared if part not in mine]:
            self._prepared.pop(part).close()
        self._reading = {part: reading for part, reading in self._reading.items() if part in mine}
        self._told &= mine
        self._queue = {
            request: wanted
            for request, wanted in self._queue.items()
            if request[0] not in new.lost and (wanted.part in mine or old.parts[wanted.part] != self._fabric.rank)
        }
        if self._names is not None:
            self._names.viewed(old, new)
        self._read(new)
        self._serve()

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(self, view: View) -> None:
        for part, rank in enumerate(view.parts):
            if rank == self._fabric.rank and part not in self._prepared and part not in self._reading:
                self._reading[part] = self._fabric.aside(partial(self._part, part, len(view.parts)))

    def _part(self, part: int, parts: int) -> Part:
        if self._spec.has_images:
            from mpips.dataserver.images import ImagePart  # whose kernels others need not load

            return ImagePart(self._spec, self._base, part, parts, self._threads)
        return prepare(self._spec, self._base, part, parts)

    def _read_step(self) -> bool:
        return self._fill_step() or self._new_parts()

    def _new_parts(self) -> bool:
        read = [part for part, reading in self._reading.items() if reading.done()]
        for part in read:
            try:
                prepared = self._prepared[part] = self._reading.pop(part).result()
                if self._names is not None:
                    assert prepared.dictionary is not None
                    self._names.read(part, prepared.dictionary)
            except Error as error:
                self._line.tell(Failed(str(error)))
        if read:
            self._go_on()
        return bool(read)

    def _ready(self, part: int) -> bool:
        return part in self._prepared and (self._names is None or self._names.whole is not None)

    def _go_on(self) -> None:
        """Tell the scheduler of parts that have become ready, and serve them."""
        for part in sorted(self._prepared.keys() - self._told):
            if self._ready(part):
                self._told.add(part)
                self._line.tell(self._summary(part, self._prepared[part]))
        self._serve()

    def _summary(self, part: int, data: Part) -> DataReady:
        whole = self._names.whole if self._names is not None else None
        features, groups, named = data.features, list[tuple[int, int]](), dict[str, int]()
        if whole is not None:
            features, groups = len(whole), [(lo, hi) for _, lo, hi in whole.blocks]
            named = whole.find(self._wanted)
        rows = data.train_rows, data.test_rows, data.skipped
        return DataReady(part, data.train, data.test, *rows, features, groups, named)

    # --- batches ----------------------------------------------------------------------------------------------------

    def _requested(self, source: int, message: BatchRequest) -> None:
        self._queue[source, message.number] = Wanted(message.part, message.batch, message.epoch)
        self._serve()

    def _taken(self, source: int, message: BatchTaken) -> None:
        self._queue.pop((source, message.number), None)
        self._shelf.give_back((source, message.number))
        self._serve()

    def _serve(self) -> None:
        """Answer requests in order, as far as their parts are read and there is room."""
        for request, wanted in list(self._queue.items()):
            if self._names is not None and self._names.need_room:
                return  # else batches, which are smaller, would always be first
            if not self._ready(wanted.part):
                continue
            if self._lasts(wanted):
                wanted = wanted._replace(epoch=0)
            try:
                if wanted not in self._shelf and not self._load(wanted):
                    return  # all that is here is in use: goes on when something is taken
            except (Error, OSError) as error:
                self._fail(wanted, error)
                return
            if wanted in self._filling:
                continue
            del self._queue[request]
            source, number = request
            self._fabric.send(source, BatchReady(number, *self._shelf.lend(wanted, request)))

    def _lasts(self, wanted: Wanted) -> bool:
        """Whether a batch is the same in every epoch."""
        part = self._prepared[wanted.part]
        return part.lasting or wanted.batch >= part.train

    def _fail(self, wanted: Wanted, error: BaseException) -> None:
        self._line.tell(Failed(f"part {wanted.part}, batch {wanted.batch}: {error}"))

    def _load(self, wanted: Wanted) -> bool:
        """Bring a batch into the arena, or begin to; False while there is no room for it."""
        part = self._prepared[wanted.part]

        def fill(blob: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
            part.read(wanted.batch, wanted.epoch, blob)
            if self._names is not None and self._names.whole is not None:
                keys = Batch.unpack(blob).keys
                keys[:] = self._names.whole.ids(keys)

        def begin(blob: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
            self._filling[wanted] = self._fabric.aside(partial(fill, blob))

        size, once = part.size(wanted.batch), not self._lasts(wanted)
        if part.lasting:
            return self._shelf.put(wanted, size, fill, once)
        if not self._shelf.put(wanted, size, begin, once):
            return False
        self._shelf.lend(wanted, (self._fabric.rank, wanted))  # it stays until it is filled
        return True

    def _fill_step(self) -> bool:
        """Answer those who wait for what is filled now."""
        filled = [wanted for wanted, filling in self._filling.items() if filling.done()]
        for wanted in filled:
            filling = self._filling.pop(wanted)
            if (error := filling.exception()) is not None:
                self._fail(wanted, error)
        if filled:
            self._serve()
        for wanted in filled:
            self._shelf.give_back((self._fabric.rank, wanted))
        return bool(filled)
