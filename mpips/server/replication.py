"""Chain replication: what the head of a shard has changed goes down its chain, and acknowledgements come back up.

A change tells what rows have become, so a copy stores it and repeats no work. The changes of a shard are numbered by
its head; a copy takes each once and in order, whatever it is sent again. With them go the clock's entries, kept by the
path on which changes come (head and predecessor), since only changes of one path come in order: when a head dies its
successor knows to the push what its copy contains. Source: van Renesse and Schneider 2004; Li et al. 2014, section 4.3.
"""

from collections.abc import Callable, Iterable

import numpy as np

from mpips.errors import Error
from mpips.fabric import Fabric
from mpips.kernels.copies import all_follow
from mpips.messages import Change, ChangeTaken, ShardsWanted
from mpips.server.clock import Entry
from mpips.server.coalescing import Applied, Coalescing
from mpips.server.copies import NOBODY, Copies
from mpips.server.copying import Copying, all_of, write
from mpips.server.incoming import Incoming
from mpips.server.outgoing import NO_VIEW, Changed, Outgoing
from mpips.server.rows import Array, Rows
from mpips.server.shards import Shards
from mpips.tasks.countdown import Countdown, Then, nothing
from mpips.views.view import View


class CopyError(Error, RuntimeError):
    """A change that does not follow what a copy has: the copies of a shard are no longer alike."""


class Replication:
    """One for each server.

    Parameters
    ----------
    fabric, incoming : this server's.
    share : of this server's time, in a view, for making copies in the background.
    whole : called with the number of a view when every copy that it has this server make is here, but for changes.
    """

    def __init__(
        self, fabric: Fabric, incoming: Incoming, share: Callable[[View], float], whole: Callable[[int], None]
    ) -> None:
        self.tables: list[Copies] = []
        self._fabric = fabric
        self._incoming = incoming
        self._whole = whole
        self._view: View | None = None
        self._replicates = False
        self._outgoing = Outgoing(fabric)
        self._copying = Copying(fabric, self.tables, self._outgoing, share)
        self.taken = self._outgoing.taken
        self.wanted = self._copying.wanted
        self._coalescing = Coalescing(fabric, self.tables, self._send_applied)
        self.make_way = self._coalescing.make_way
        self.make_way_for_push = self._coalescing.make_way_for_push

    @property
    def copied(self) -> int:
        """Bytes that this server has sent to copies on their way, in all views."""
        return self._copying.copied

    @property
    def is_idle(self) -> bool:
        """Whether no change and no copy is on its way."""
        lacking = any(copies.missing.any() or copies.behind.lacks for copies in self.tables)
        return self._outgoing.idle and self._coalescing.idle and not lacking

    # --- what the head has changed ----------------------------------------------------------------------------------

    def changed(self, table: int, applied: Applied, then: Then) -> None:
        """A push that way was made for is applied here; `then` is for when every copy has it."""
        if not self._replicates or self._view is None:
            then()
        elif self._copying.active:  # which looks at the numbers of changes
            self._send_applied(table, applied, then)
        else:
            self._coalescing.add(table, applied, then)

    def _send_applied(self, table: int, applied: Applied, then: Then) -> None:
        assert self._view is not None
        copies = self.tables[table]
        lo, hi, keys, steps, whole_range = applied
        touched, starts = copies.shards.touched(lo, hi, keys, whole_range)
        numbers = copies.shards.numbers
        numbers[touched] += 1
        after = copies.after[touched]
        countdown = Countdown(then)
        for successor in sorted(set(after.tolist()) - {NOBODY}):
            if keys is None:
                chosen = np.flatnonzero(after == successor)
                firsts = np.maximum(lo, touched[chosen] << copies.shards.spec.shard_bits)
                rows = self._runs(copies.shards, touched[chosen], firsts, starts[chosen + 1] - starts[chosen])
                self._send(successor, table, self._view.number, rows, steps, countdown.one_more())
                continue
            number, rows_of = self._view.number, Changed(keys, touched, starts, after)
            self._outgoing.send_keys(
                successor, table, number, "rows", copies.shards, rows_of, steps, countdown.one_more()
            )
        copies.behind.changed(touched, starts, keys)
        countdown.done()

    @staticmethod
    def _runs(shards: Shards, touched: Array, firsts: Array, sizes: Array) -> Rows:
        """Neighbouring rows of some shards: of each so many, from its first."""
        parts = [shards.run(first, size) for first, size in zip(firsts.tolist(), sizes.tolist(), strict=True)]
        values, state = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
        return Rows(touched, shards.numbers[touched], starts, firsts.astype(np.uint64), values, state)

    def rewritten(self, table: int, concerned: Iterable[int], steps: list[Entry], then: Then) -> None:
        """A function that way was made for has written to whole shards; `then` is for when every copy has them."""
        copies = self.tables[table]
        countdown = Countdown(then)
        for shard in concerned if self._replicates else ():
            copies.shards.numbers[shard] += 1
            if copies.after[shard] != NOBODY:
                self._down(table, NO_VIEW, all_of(copies.shards, shard), steps, countdown.one_more())
            copies.behind.again([shard])
        countdown.done()

    def drain(self, then: Then) -> None:
        """Nothing more is applied in this view: call `then` when all copies have all."""
        self._coalescing.flush()
        self._copying.drain(then)

    def when_all_is_taken(self, then: Then) -> None:
        """Call `then` when all changes that have been to go down chains so far are acknowledged."""
        self._coalescing.flush()
        self._outgoing.when_taken(lambda sent: sent.kind == "rows", then)

    def _down(self, table: int, applied: int, rows: Rows, steps: list[Entry], then: Then) -> None:
        """Send rows to the servers after this one, each its own; those whose chain ends here go nowhere."""
        copies = self.tables[table]
        where = table, copies.shards.spec
        self._outgoing.send_each(copies.after[rows.shards], where, applied, "rows", rows, steps, then)

    def _send(self, successor: int, table: int, applied: int, rows: Rows, steps: list[Entry], then: Then) -> None:
        spec = self.tables[table].shards.spec
        self._outgoing.send(successor, (table, spec), applied, "rows", rows, steps, then)

    # --- what comes down ----------------------------------------------------------------------------------------------

    def change(self, source: int, message: Change) -> None:
        """A change comes from the server before this one."""

        def acknowledge() -> None:
            """All has been done that can be done in this view: the copy after this one may be of another chain now, and
            the one before must know that before it relies on it.
            """
            assert self._view is not None
            self._fabric.send(source, ChangeTaken(self._view.number, message.number))

        def store(read: list[Array]) -> None:
            if message.kind == "clock":
                self._copying.clock(source, message, read[0], acknowledge)
                return
            spec = self.tables[message.table].shards.spec
            rows = Rows.unpack(read[0], spec, message.shards, message.rows, message.runs)
            if message.kind in ("rows", "later"):
                self._store(source, message, rows, acknowledge)
            else:
                self._copying.copy(source, message, rows, acknowledge)
                self._tell_when_whole()

        self._incoming.read(source, [(message.offset, message.size, "uint8")], store)

    def _store(self, source: int, message: Change, rows: Rows, then: Then) -> None:
        copies = self.tables[message.table]
        shards = copies.shards
        if all_follow(rows.shards, rows.numbers, shards.numbers, copies.before, copies.since, source, message.view):
            fresh, known = rows, rows.shards[:0]
        else:
            fresh, known = self._sorted_out(source, message, rows)
        countdown = Countdown(then)
        if fresh.shards.size:
            write(shards, fresh)
            shards.numbers[fresh.shards] = fresh.numbers
            self._advance(copies, fresh, message)
            self._down(message.table, message.applied, fresh, message.steps, countdown.one_more())
            self._copying.follow(message, fresh, countdown.one_more())
        if known.size:  # it was here before, but may be on its way further down
            self._outgoing.when_taken(
                lambda sent: (
                    sent.kind == "rows"
                    and sent.table == message.table
                    and not sent.lingers
                    and bool(np.isin(known, sent.rows(shards.spec).shards).any())
                ),
                countdown.one_more(),
            )
        countdown.done()

    def _sorted_out(self, source: int, message: Change, rows: Rows) -> tuple[Rows, Array]:
        """Of the rows of a change those that are new here, and the shards that had it before.

        Rows that have changed since a copy was sent may be of several changes, or tell again of the last.
        """
        copies = self.tables[message.table]
        shards = copies.shards
        mine = shards.numbers[rows.shards]
        accepted = copies.accepts(rows.shards, source, message.view)
        if message.kind == "later":
            return rows.only(accepted & (rows.numbers >= mine)), rows.shards[:0]
        new = accepted & (rows.numbers > mine)
        if (rows.numbers[new] != mine[new] + 1).any():
            raise CopyError(
                f'server {self._fabric.rank}: a change of table "{shards.spec.name}" from server {source} does not '
                f"follow what is here: {rows.numbers[new].tolist()} after {mine[new].tolist()}"
            )
        # on a way that is none any more nobody waits for the acknowledgement
        return rows.only(new), rows.shards[accepted & ~new]

    def _advance(self, copies: Copies, rows: Rows, message: Change) -> None:
        """The clock goes on: of all shards of the path; or, if that may have had others when the head applied the
        pushes, of those that the change tells of.
        """
        assert self._view is not None
        if message.applied == self._view.number:
            for path in dict.fromkeys(copies.paths[shard] for shard in rows.shards.tolist()):
                for entry in message.steps:
                    copies.clock(path).advance(*entry)
            return
        for shard in rows.shards.tolist():
            first, last = copies.positions(shard)
            for identity, lo, hi, step in message.steps:
                if lo < last and hi > first:
                    copies.clock(copies.paths[shard]).advance(identity, max(lo, first), min(hi, last), step)

    def _tell_when_whole(self) -> None:
        assert self._view is not None
        if self._view.ring != self._view.target and not any(copies.missing.any() for copies in self.tables):
            self._whole(self._view.number)

    # --- views --------------------------------------------------------------------------------------------------------

    def viewed(self, view: View, taken: Then) -> None:
        """Take the places of a view, and call `taken`; then send what the servers that are after this one now may lack,
        and ask the one before for copies.
        """
        self._coalescing.flush()
        self._view, self._outgoing.view = view, view.number
        me, wanted = self._fabric.rank, []
        led = [list(copies.shards.led) for copies in self.tables]
        for table, copies in enumerate(self.tables):
            wanted += [each._replace(table=table) for each in copies.viewed(view, me)]
        self._copying.viewed(view)
        replicated = self._replicates
        self._replicates = any(copies.have_successors for copies in self.tables)
        if self._replicates and not replicated:
            for copies, alone in zip(self.tables, led, strict=True):
                copies.shards.numbers[alone] += 1  # nobody has a copy of what was changed meanwhile
        taken()
        self._send_again()
        for server in sorted({each.server for each in wanted}):
            asked = [(each.table, each.shard, each.number) for each in wanted if each.server == server]
            self._fabric.send(server, ShardsWanted(view.number, asked))
        self._tell_when_whole()

    def _send_again(self) -> None:
        """What was sent to a server that is no longer the one after this, and not acknowledged, goes to the new one.

        It lies in the arena until the other has acknowledged it all the same, since that may just be reading it.
        """
        assert self._view is not None
        outgoing = self._outgoing
        for number in list(outgoing.sent):
            sent = outgoing.sent.get(number)  # as it is now: what ends here may have something else wait for it
            if sent is None:
                continue
            if sent.kind != "rows":  # who has come after this one instead asks for all of it
                if sent.successor in self._view.lost:
                    outgoing.drop(number)
                continue
            rows = sent.rows(self.tables[sent.table].shards.spec)
            after = self.tables[sent.table].after[rows.shards]
            stays = after == sent.successor
            if stays.all():
                continue
            countdown, lingers = Countdown(sent.then), not stays.any()
            then = nothing if lingers else countdown.one_more()
            outgoing.sent[number] = sent._replace(then=then, lingers=lingers)
            self._down(sent.table, sent.applied, rows.only(~stays), sent.steps, countdown.one_more())
            countdown.done()
            if lingers and (sent.successor in self._view.lost or sent.slot is None) and number in outgoing.sent:
                outgoing.drop(number)

    def release(self) -> None:
        """Give back the shards that this server has no part in."""
        for copies in self.tables:
            idle = (copies.before == NOBODY) & (copies.after == NOBODY) & (copies.coming == NOBODY)
            led = set(copies.shards.led)
            for shard in [shard for shard in copies.shards.held if idle[shard] and shard not in led]:
                copies.shards.give_back(shard)
