"""Workloads and their batches as a worker meets them: asked for ahead of need, viewed in the data server's arena."""

from collections import defaultdict, deque
from collections.abc import Iterator

import numpy as np

from mpips.dataserver.batch import Batch
from mpips.fabric import Fabric
from mpips.messages import BatchReady, BatchRequest, BatchTaken, NoMoreWork, Workload, WorkRequest
from mpips.scheduler.line import Line

Blob = np.ndarray[tuple[int], np.dtype[np.uint8]]

AHEAD = 3  # batches asked for before they are needed


class Batches:
    """Asks the scheduler for workloads and the data servers for their batches, a few ahead.

    Attributes
    ----------
    waited : seconds in all that there was no workload.
    """

    def __init__(self, fabric: Fabric, line: Line) -> None:
        self.waited = 0.0
        self._fabric = fabric
        self._line = line
        self._coming: deque[tuple[Workload, int]] = deque()  # batches in order of use; the first few are asked for
        self._asked = 0
        self._ready: defaultdict[tuple[int, int], deque[Blob | BatchReady]] = defaultdict(deque)
        self._requested = False
        self._over = False
        fabric.on(Workload, self._given)
        fabric.on(NoMoreWork, self._ended)
        fabric.on(BatchReady, self._arrived)

    def __iter__(self) -> Iterator[tuple[Workload, int, Batch]]:
        """Workload, number and content of every batch, until there is no more work; its arrays are valid until the
        next one is asked for. It can be done again, for work of another kind.
        """
        self._over = False
        while True:
            self._ask()
            begin = self._fabric.now()
            self._fabric.wait(
                lambda: bool(self._coming) or self._over, "a workload", lambda: {self._line.scheduler}, timeout=None
            )
            self.waited += self._fabric.now() - begin
            if not self._coming:
                return
            self._ask()
            workload, number = self._coming[0]
            server = workload.data_server
            blob = self._next_blob(server, number)
            if isinstance(blob, BatchReady):
                yield workload, number, Batch.unpack(self._fabric.view(server, blob.offset, blob.size))
                self._fabric.send(server, BatchTaken(number))
            else:
                yield workload, number, Batch.unpack(blob)
            self._coming.popleft()
            self._asked -= 1

    def _next_blob(self, server: int, number: int) -> Blob | BatchReady:
        ready = self._ready[server, number]
        self._fabric.wait(lambda: bool(ready), f"batch {number}", lambda: {server}, timeout=None)
        return ready.popleft()

    def _ask(self) -> None:
        for workload, number in list(self._coming)[self._asked : AHEAD]:
            self._fabric.send(workload.data_server, BatchRequest(number))
            self._asked += 1
        if len(self._coming) <= AHEAD and not self._requested and not self._over:
            self._requested = True
            self._line.tell(WorkRequest())

    def _given(self, source: int, message: Workload) -> None:
        self._requested = False
        self._coming.extend((message, number) for number in message.batches)
        self._ask()

    def _ended(self, source: int, message: NoMoreWork) -> None:
        self._requested = False
        self._over = True

    def _arrived(self, source: int, message: BatchReady) -> None:
        if self._fabric.place(source) is not None:
            self._ready[source, message.batch].append(message)
            return
        blob = np.empty(message.size, np.uint8)

        def copied() -> None:
            self._fabric.send(source, BatchTaken(message.batch))
            self._ready[source, message.batch].append(blob)

        self._fabric.fetch(source, message.offset, blob, copied)
