"""Workloads and their batches as a worker meets them: asked for ahead of need, viewed in the data server's arena."""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpips.dataserver.batch import Batch
from mpips.dataserver.image_batch import ImageBatch, is_of_images
from mpips.fabric import Deadline, Fabric
from mpips.line import Line
from mpips.messages import BatchReady, BatchRequest, BatchTaken, NoMoreWork, Resumed, Workload, WorkRequest
from mpips.views.view import View

AHEAD = 3  # batches asked for before they are needed
PATIENCE = 2.0  # seconds until room for the batch that is needed next may be what is missing


@dataclass(slots=True, eq=False)
class Coming:
    """A batch that is to be used.

    Attributes
    ----------
    asked : the data server that was asked for it.
    request : the number of that request; None before.
    again : the view for which it had to be asked for again.
    copying : whether it is or was copied from another node.
    blob : its bytes, when they can be used.
    """

    workload: Workload
    batch: int
    asked: int = -1
    request: int | None = None
    again: int | None = None
    copying: bool = False
    blob: np.ndarray[Any, np.dtype[np.uint8]] | None = None


class Batches:
    """Asks the scheduler for workloads and the data servers for their batches, a few ahead.

    Of a team the one that leads asks the scheduler, which gives every member the same workloads in the same order.

    A batch whose data server has died is asked for again, of the one that has its place; one that lies ready in the
    arena of a dead rank of this node is used from there, since its memory stays mapped.

    Attributes
    ----------
    waited : seconds in all that there was no workload.
    """

    def __init__(self, fabric: Fabric, view: View, line: Line, leads: bool = True) -> None:
        self.waited = 0.0
        self._fabric = fabric
        self._view = view
        self._line = line
        self._coming: deque[Coming] = deque()  # in order of use; the first few are asked for
        self._asked: dict[int, Coming] = {}  # by request
        self._numbers = itertools.count(view.number << 32)  # others than those of a worker that this rank was before
        self._resumed = view.number  # the last view whose recovery this worker has told of
        self._leads = leads
        self._requested = False
        self._over = False
        self._begun = False  # whether the program takes batches
        self._in_use: Coming | None = None  # the batch that it has
        self._left = False
        fabric.on(Workload, self._given)
        fabric.on(NoMoreWork, self._ended)
        fabric.on(BatchReady, self._arrived)

    def __iter__(self) -> Iterator[tuple[Workload, int, Batch | ImageBatch]]:
        """Workload, number and content of every batch, until there is no more work; its arrays are valid until the
        next one is asked for. It can be done again, for work of another kind.
        """
        self._begun = True
        if self._leads:  # others were told, if so, and are not told again
            self._over = self._left
        while True:
            self._ask()
            begin = self._fabric.now()
            self._fabric.wait(lambda: bool(self._coming) or self._over, "a workload", timeout=None)
            self.waited += self._fabric.now() - begin
            if not self._coming:
                return
            self._ask()
            coming = self._coming[0]
            blob = self._wait_for(coming)
            if self._left:
                return
            if blob is None:
                continue
            self._in_use = coming
            yield coming.workload, coming.batch, ImageBatch.unpack(blob) if is_of_images(blob) else Batch.unpack(blob)
            self._in_use = None
            if self._coming and self._coming[0] is coming:
                self._coming.popleft()
            self._done_with(coming)

    def has_older(self, cut: int) -> bool:
        """Whether there are batches to be used, or in use, that were handed out before this cut."""
        return any(coming.workload.cut < cut for coming in self._coming)

    def viewed(self, old: View, new: View) -> None:
        """Ask those that have the parts now for what has not come."""
        self._view = new
        for request, coming in self._asked.items():
            lost = coming.asked in new.lost
            if coming.blob is None and (lost or not coming.copying) and coming.asked != new.parts[coming.workload.part]:
                self._fabric.send(coming.asked, BatchTaken(request))
                coming.again, coming.copying = new.number, False
                self._send(coming, request)

    def begin_anew(self) -> None:
        """The team has another member: leave what there is, but for the batch in use; it will be given out again."""
        self._give_back()
        self._coming.clear()
        if self._begun:
            self._ask()

    def leave(self) -> None:
        """Take no more work, and give back what there is, but for the batch that is in use."""
        self._left = self._over = True
        self._give_back()
        self._coming = deque(coming for coming in self._coming if coming is self._in_use)

    def close(self) -> None:
        """Nobody will use the batch that was in use when this worker left."""
        for coming in self._coming:
            self._done_with(coming)
        self._fabric.off(BatchReady)

    def cancel(self, number: int) -> Workload | None:
        """Leave a workload, but for the batch that is in use: the workload, if there was anything left of it."""
        left = [coming for coming in self._coming if coming.workload.number == number]
        for coming in left:
            if coming is not self._coming[0]:
                self._coming.remove(coming)
                if coming.request is not None:
                    self._done_with(coming)
        self._ask()
        return left[0].workload if left else None

    def _wait_for(self, coming: Coming) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        """Its bytes; None when there is no use for them any more."""
        part, batch = coming.workload.part, coming.batch

        def unwanted() -> bool:
            return self._left or not self._coming or self._coming[0] is not coming

        while coming.blob is None and not unwanted():
            try:
                self._fabric.wait(
                    lambda: coming.blob is not None or unwanted(),
                    lambda: f"batch {batch} of part {part} from data server {coming.asked}",
                    timeout=PATIENCE,
                )
            except Deadline:
                self._make_room()
        return None if unwanted() else coming.blob

    def _make_room(self) -> None:
        """Let go of what lies ready for later, and ask for it again: data servers whose arenas are full of such batches
        would wait for each other.
        """
        for coming in itertools.islice(self._coming, 1, None):
            if coming.blob is not None and not coming.copying:
                self._done_with(coming)
                coming.blob, coming.request = None, None
        self._ask()

    def _give_back(self) -> None:
        """Have no use for what was asked for, but for the batch in use."""
        for coming in self._coming:
            if coming is not self._in_use and coming.request is not None:
                self._done_with(coming)

    def _done_with(self, coming: Coming) -> None:
        assert coming.request is not None
        del self._asked[coming.request]
        if not coming.copying:
            self._fabric.send(coming.asked, BatchTaken(coming.request))

    def _ask(self) -> None:
        for coming in itertools.islice(self._coming, AHEAD):
            if coming.request is None:
                coming.request = next(self._numbers)
                self._asked[coming.request] = coming
                self._send(coming, coming.request)
        if self._leads and len(self._coming) <= AHEAD and not self._requested and not self._over:
            self._requested = True
            self._line.tell(WorkRequest())

    def _send(self, coming: Coming, request: int) -> None:
        coming.asked = self._view.parts[coming.workload.part]
        self._fabric.send(
            coming.asked, BatchRequest(request, coming.workload.part, coming.batch, coming.workload.epoch)
        )

    def _given(self, source: int, message: Workload) -> None:
        self._requested = False
        self._coming.extend(Coming(message, batch) for batch in message.batches)
        self._ask()

    def _ended(self, source: int, message: NoMoreWork) -> None:
        self._requested = False
        self._over = True

    def _arrived(self, source: int, message: BatchReady) -> None:
        coming = self._asked.get(message.number)
        if coming is None or coming.asked != source or (coming.copying and coming.blob is not None):
            self._fabric.send(source, BatchTaken(message.number))  # an answer too many is given back
        elif coming.blob is None and not coming.copying:
            if self._fabric.place(source) is not None:
                self._use(coming, self._fabric.view(source, message.offset, message.size))
            else:
                self._copy(coming, source, message)

    def _copy(self, coming: Coming, source: int, message: BatchReady) -> None:
        coming.copying = True
        blob = np.empty(message.size, np.uint8)

        def copied() -> None:
            self._fabric.send(source, BatchTaken(message.number))
            if coming.asked == source:
                self._use(coming, blob)

        self._fabric.fetch(source, message.offset, blob, copied)

    def _use(self, coming: Coming, blob: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        coming.blob = blob
        if coming.again is not None and coming.again > self._resumed:
            self._resumed = coming.again
            self._line.tell(Resumed(coming.again))
