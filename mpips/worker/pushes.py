"""The pushes of one worker to one table: laid into its arena, sent in order, and remembered until every copy has them.

Until then they may have to be sent again: when a view gives shards to other servers, what those that had them before
have not acknowledged goes to the new ones, before anything else does.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.functions import unpack
from mpips.kernels.gather import copy_finite, copy_finite_rows
from mpips.messages import Product, PushReply, ShardsReply, Taken
from mpips.rule import check
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.tasks.lane import Lane
from mpips.worker.keys import KeyRangeError, Keys, Placement, ShapeError, key_range
from mpips.worker.outgoing import Outgoing
from mpips.worker.sending import Calling, Part, Rule, Segment, Sending
from mpips.worker.steps import Step, Steps

Array = np.ndarray[Any, Any]


class NonFiniteError(Error, ValueError):
    """NaN or infinite values in a push, which is refused as a whole."""


class Pushes:
    """One for each table of a worker.

    Parameters
    ----------
    spec, index : the table and its number in the job.
    placement : which server has which of its shards.
    fabric, issued, outgoing : this worker's.
    steps : numbers them.
    resumed : called with the number of a view when the first push that was sent again for it is acknowledged.

    Attributes
    ----------
    sent : how many have been sent.
    """

    def __init__(
        self,
        spec: TableSpec,
        index: int,
        placement: Placement,
        fabric: Fabric,
        issued: Issued,
        outgoing: Outgoing,
        steps: Steps,
        resumed: Callable[[int], None],
    ) -> None:
        self.sent = 0
        self._spec = spec
        self._index = index
        self._placement = placement
        self._fabric = fabric
        self._issued = issued
        self._outgoing = outgoing
        self._steps = steps
        self._resumed = resumed
        self._push_bytes = spec.push_width * spec.itemsize
        self.lane = Lane()
        self._made: deque[Sending] = deque()
        self._roomless: deque[tuple[Sending, list[int], list[int]]] = deque()  # parts, and what they come after

    def push(
        self, keys: Any, values: Any, after: list[Task[Any]], within: range | slice | None, rule: Rule
    ) -> Task[None]:
        """As `Table.push`."""
        check(self._spec.rule, rule)
        if isinstance(keys, range | slice):
            if self._spec.kind == "sparse":
                raise KeyRangeError(f'table "{self._spec.name}" is sparse: push a key list')
            lo, hi = key_range(self._spec, keys)
            assert hi is not None
            rows = self._rows(values, hi - lo)
            if not self._spec.push_filters:
                return self._push_range(lo, hi, rows, after, rule)
            keys, within = np.arange(lo, hi, dtype=np.uint64), range(lo, hi)
        keys = self._placement.keys(keys)
        about = self._about(keys, within)
        rows = self._rows(values, keys.array.size)
        if self._outgoing.filters_pushes:
            return self._push_filtered(keys, rows, about, after, rule)
        return self._push_keys(keys, rows, about, after, rule)

    def push_product(
        self, left: Array, right: Array, after: list[Task[Any]], within: range | slice, rule: Rule
    ) -> Task[None]:
        """As `Table.push_product`."""
        check(self._spec.rule, rule)
        spec = self._spec
        left, right = (np.ascontiguousarray(matrix, spec.dtype) for matrix in (left, right))
        terms = left.shape[-1]
        if spec.kind == "sparse":
            raise ShapeError(f'table "{spec.name}": a product needs a dense table')
        lo, hi = key_range(spec, within)
        assert hi is not None
        if (left.shape, right.shape) != ((hi - lo, terms), (spec.push_width, terms)):
            wanted = f"({hi - lo}, n) and ({spec.push_width}, n)"
            raise ShapeError(f'table "{spec.name}": a product needs {wanted}, got {left.shape} and {right.shape}')
        if spec.push_filters or lo == hi:
            return self.push(range(lo, hi), left @ right.T, after, None, rule)
        task: Task[None] = Task(self._issued, f'push of a product of {terms} terms to table "{spec.name}"')
        slot = self._issued.room(left.nbytes + right.nbytes)
        bad = 0
        for at, matrix in (slot, right), (slot + right.nbytes, left):
            cells = self._fabric.values(self._fabric.rank, at, matrix.size, spec.dtype)
            bad = bad or copy_finite(matrix.reshape(-1), cells)
        if bad:
            self._fabric.space.free(slot)
            raise NonFiniteError(f'push to table "{spec.name}" refused: {bad:,} values are NaN or infinite')
        product = Product(terms, slot + right.nbytes)
        sending = self._sending(task, self._steps.next(), (lo, hi), None, right, slot, rule=rule, product=product)
        return self._send_range(sending, slot, right.nbytes, terms * spec.itemsize, after)

    def _about(self, keys: Keys, within: range | slice | None) -> tuple[int, int]:
        """The positions that a push of a key list is about."""
        if within is None:
            return 0, self._spec.positions
        if self._spec.kind == "sparse":
            raise KeyRangeError(f'table "{self._spec.name}" is sparse: its pushes are about all of it')
        lo, hi = key_range(self._spec, within)
        assert hi is not None
        if keys.array.size and not (lo <= int(keys.array[0]) and int(keys.array[-1]) < hi):
            raise KeyRangeError(
                f'table "{self._spec.name}": keys {keys.array[0]}…{keys.array[-1]} are not within [{lo}, {hi})'
            )
        return lo, hi

    def _rows(self, values: Any, n: int) -> Array:
        width = self._spec.push_width
        rows: Array = np.ascontiguousarray(values, self._spec.dtype)
        if rows.shape != (n, width) and not (width == 1 and rows.shape == (n,)):
            shape = (n,) if width == 1 else (n, width)
            raise ShapeError(f'table "{self._spec.name}": {n} keys need values of shape {shape}, got {rows.shape}')
        return rows.reshape(n, width)

    def _push_keys(
        self, keys: Keys, values: Array, about: tuple[int, int], after: list[Task[Any]], rule: Rule
    ) -> Task[None]:
        spec, n = self._spec, keys.array.size
        task: Task[None] = Task(self._issued, f'push of {n:,} keys to table "{self._spec.name}"')
        if n == 0 and not spec.aggregate:
            self._issued.when(task, lambda: task.finish(None), after)
            return task
        slot = self._issued.room(n * (8 + self._push_bytes))
        own_keys = self._fabric.values(self._fabric.rank, slot, n, "uint64")
        cells = self._fabric.values(self._fabric.rank, slot + 8 * n, values.size, spec.dtype)
        if keys.order.size:
            np.take(keys.array, keys.order, out=own_keys, mode="clip")  # "raise" would buffer
            bad = copy_finite_rows(values, keys.order, cells.reshape(values.shape))
        else:
            own_keys[:] = keys.array
            bad = copy_finite(values.reshape(-1), cells)
        if bad:
            self._fabric.space.free(slot)
            self._refuse(bad, values, keys.array)
        cells = cells.reshape(values.shape)
        sending = self._sending(task, self._steps.next(), about, own_keys, cells, slot, rule=rule)
        for server, (start, end) in self._groups(keys, about).items():
            sending.add(Part(server, [(start, end)] if end > start else []))
            self._outgoing.count(server, (end - start) * (8 + self._push_bytes))
        task.on_end(lambda: self._fabric.space.free(slot))
        return self._send(sending, after)

    def _groups(self, keys: Keys, about: tuple[int, int]) -> dict[int, Segment]:
        """The servers that a push of keys goes to, and where the group of each begins and ends.

        A table that aggregates has it sent to all servers of the range: they count who has pushed.
        """
        bounds = keys.bounds
        counting = self._placement.servers_of(*about) if self._spec.aggregate else ()
        return {
            server: (bounds[i], bounds[i + 1])
            for i, server in enumerate(self._placement.servers)
            if bounds[i + 1] > bounds[i] or server in counting
        }

    def _push_filtered(
        self, keys: Keys, values: Array, about: tuple[int, int], after: list[Task[Any]], rule: Rule
    ) -> Task[None]:
        """The same through the table's filters, which are one chain for each server."""
        task: Task[None] = Task(self._issued, f'push of {keys.array.size:,} keys to table "{self._spec.name}"')
        order = keys.order if keys.order.size else np.arange(keys.array.size)
        grouped = np.empty_like(values)
        bad = copy_finite_rows(values, order, grouped)
        if bad:
            self._refuse(bad, values, keys.array)
        step = self._steps.next()  # also when the filters leave nothing: a batch done again may drop other entries
        groups = {
            server: (keys.array[order[start:end]], grouped[start:end])
            for server, (start, end) in self._groups(keys, about).items()
        }
        laid = self._outgoing.lay(task, "push", groups)
        if not self._spec.aggregate:
            laid = {server: packet for server, packet in laid.items() if packet.entries}
        if not laid:
            self._issued.when(task, lambda: task.finish(None), after)
            return task
        plain_keys = np.concatenate([packet.plain.entries() for packet in laid.values()])
        plain_values = np.concatenate([packet.plain.values for packet in laid.values()])
        sending = self._sending(task, step, about, plain_keys, plain_values, None, rule=rule)
        start = 0
        for server, (at, middle, count, coded, plain) in laid.items():
            end = start + plain.values.shape[0]
            sending.add(Part(server, [(start, end)], (at, middle, count, coded)))
            start = end
        return self._send(sending, after)

    def _push_range(self, lo: int, hi: int, values: Array, after: list[Task[Any]], rule: Rule) -> Task[None]:
        task: Task[None] = Task(self._issued, f'push of rows [{lo}, {hi}) to table "{self._spec.name}"')
        if lo == hi:
            self._issued.when(task, lambda: task.finish(None), after)
            return task
        slot = self._issued.room(values.nbytes)
        cells = self._fabric.values(self._fabric.rank, slot, values.size, self._spec.dtype)
        bad = copy_finite(values.reshape(-1), cells)
        if bad:
            self._fabric.space.free(slot)
            self._refuse(bad, values, range(lo, hi))
        cells = cells.reshape(values.shape)
        sending = self._sending(task, self._steps.next(), (lo, hi), None, cells, slot, rule=rule)
        return self._send_range(sending, slot, 0, self._push_bytes, after)

    def _send_range(self, sending: Sending, slot: int, to_each: int, to_row: int, after: list[Task[Any]]) -> Task[None]:
        """Send a push of a range, of which each server reads so many bytes, and so many more for a row of its own."""
        for server in self._placement.servers_of(*sending.about):
            sending.add(Part(server, []))
        if not self._outgoing.alone:
            for server, rows in self._placement.rows_of(*sending.about).items():
                self._outgoing.count(server, to_each + rows * to_row)
        sending.task.on_end(lambda: self._fabric.space.free(slot))
        return self._send(sending, after)

    def call(
        self,
        task: Task[Any],
        calling: Calling,
        slot: int,
        argument: Array,
        after: list[Task[Any]],
        finish: Callable[[list[Any]], None],
    ) -> None:
        """Have a function that writes run where the shards are, in the order of pushes, and once like them; its
        argument (m,) lies in a slot of the arena. `finish` gets the replies.
        """
        about = 0, self._spec.positions
        if self._spec.kind == "dense" and calling.hi is not None and calling.lo < calling.hi:
            about = calling.lo, calling.hi
        sending = self._sending(task, self._steps.next(), about, None, argument, slot, calling)
        for server in self._placement.servers_of(*about):
            sending.add(Part(server, []))
        replies: dict[int, Any] = {}

        def replied(source: int, message: ShardsReply) -> None:
            data = np.empty(message.size, np.uint8)

            def arrived() -> None:
                self._fabric.send(source, Taken(message.time, message.part))
                replies[message.part] = unpack(data, message.dtype, message.shape)
                if self._acknowledged(sending, source, message.part):
                    finish([replies[part] for part in sorted(replies)])

            self._fabric.fetch(source, message.offset, data, arrived)

        self._issue(sending, after, replied)

    def _refuse(self, bad: int, values: Array, keys: Any) -> None:
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise NonFiniteError(
            f'push to table "{self._spec.name}" refused: {bad:,} of {values.size:,} values are NaN or infinite, '
            f"the first at key {keys[row]}"
        )

    # --- sending ------------------------------------------------------------------------------------------------------

    def _sending(
        self,
        task: Task[Any],
        step: Step,
        about: tuple[int, int],
        keys: Array | None,
        values: Array,
        slot: int | None,
        calling: Calling | None = None,
        rule: Rule | None = None,
        product: Product | None = None,
    ) -> Sending:
        where = self._spec, self._index, task, step, about, keys, values, slot, self._placement
        return Sending(*where, calling, rule, product)

    def _send(self, sending: Sending, after: list[Task[Any]]) -> Task[None]:
        def replied(source: int, message: PushReply) -> None:
            if self._acknowledged(sending, source, message.part):
                sending.task.finish(None)

        self._issue(sending, after, replied)
        return sending.task

    def _issue(self, sending: Sending, after: list[Task[Any]], replied: Callable[[int, Any], None]) -> None:
        self._drop_finished()
        self._made.append(sending)

        def send(time: int, after: list[int]) -> None:
            self.sent += sending.calling is None
            if sending.placement is not self._placement:
                changed = self._placement.changed_from(sending.placement)
                sending.split_again(self._placement, changed)
            self._post(sending, sending.parts, after)

        servers = {part.server for part in sending.parts.values()}
        self._issued.issue(sending.task, servers, send, after, replied, lane=self.lane)

    def _acknowledged(self, sending: Sending, source: int, number: int) -> bool:
        """A server has done a part; whether it was the last."""
        part = sending.parts.pop(number, None)
        if part is None:
            return False
        if part.again:
            self._resumed(self._placement.view)
        if any(other.server == source for other in sending.parts.values()):
            return False
        return self._issued.received(sending.task, source)

    def _post(self, sending: Sending, numbers: Iterable[int], after: list[int]) -> None:
        """Send some parts; but not before others for which there was no room in the arena."""
        if self._roomless or sending.is_packed:
            self._roomless.append((sending, list(numbers), after))
            self._post_what_fits()
            return
        for number in numbers:
            self._fabric.send(sending.parts[number].server, sending.message(number, after))

    def _post_what_fits(self) -> None:
        """Send what there is room for, and the rest when another task has ended and given its room back."""
        while self._roomless:
            sending, numbers, after = self._roomless[0]
            numbers = [number for number in numbers if number in sending.parts]  # others have been split again since
            try:
                sending.lay_plain(numbers, self._fabric)
            except ArenaFull:
                if self._issued.when_one_ends(self._post_what_fits, {other.task for other, _, _ in self._roomless}):
                    return
                raise
            self._roomless.popleft()
            for number in numbers:
                self._fabric.send(sending.parts[number].server, sending.message(number, after))

    def viewed(self, placement: Placement, changed: set[int]) -> None:
        """Take another placement: what went to servers that have other shards now goes to those that have them."""
        self._placement = placement
        self._outgoing.viewed(placement, sorted(changed))
        for sending in self._made:
            if sending.task.time and not sending.task.finished:
                after = [other.time for other in sending.task.before if not other.finished]
                self._roomless.append((sending, sending.split_again(placement, changed), after))
        self._roomless = deque(sorted(self._roomless, key=lambda each: each[0].task.time))
        self._post_what_fits()

    # --- those under way --------------------------------------------------------------------------------------------

    def _drop_finished(self) -> None:
        while (
            self._made and self._made[0].task.finished and (self._made[0].calling or self._made[0].task.error is None)
        ):
            self._made.popleft()

    def unfinished(self) -> list[Task[None]]:
        """Those that are not applied yet."""
        return [sending.task for sending in self._made if not sending.task.finished]

    def older(self, delay: int | None) -> list[Task[None]]:
        """Those that a pull must come after: all but the newest `delay`, and those that failed."""
        self._drop_finished()
        if delay is None or len(self._made) <= delay:
            return []
        pushes = [sending.task for sending in self._made if sending.calling is None]
        return pushes[: max(len(pushes) - delay, 0)]

    def settle(self) -> None:
        """Wait until all are applied; the error of a push that failed is raised."""
        while self._made:
            oldest = self._made[0]
            try:
                self._wait_for(oldest)
            finally:
                if self._made and self._made[0] is oldest:
                    self._made.popleft()

    def _wait_for(self, sending: Sending) -> None:
        if sending.calling is None:
            sending.task.wait()
        else:  # its error is for whoever waits for it
            self._fabric.wait(lambda: sending.task.finished, sending.task.missing)
