"""Who takes whose place: from deaths, and from wishes for more or fewer ranks, to the next view. Pure.

A server's place on the ring goes to a spare, or without one to nobody: then its shards go to those that stand behind.
Copies are made in the background; when the servers have all that the view has them copy, pushes to the shards concerned
rest for the moment that it takes all copies to be alike, and that ring is settled.
"""

from collections.abc import Sequence

import msgspec

from mpips.errors import Error
from mpips.messages import Drain, Message, NewView, Release
from mpips.plan import Plan
from mpips.scheduler.succession import with_standbys
from mpips.table import TableSpec
from mpips.views.chains import chains_of
from mpips.views.view import MAIN, View

Addressed = tuple[int, Message]


class BeyondRedundancy(Error, RuntimeError):
    """More ranks are dead than the job has others for."""


class CannotScale(Error, ValueError):
    """A job can't have so many servers or workers; the text says why."""


class Membership:
    """The views of a job, one after the other.

    Parameters
    ----------
    view : the first.
    plan : the job.

    Attributes
    ----------
    view : the one in force.
    tables : the job's, once they are made.
    messages : to be sent, with their destinations; whoever sends them empties it.
    """

    def __init__(self, view: View, plan: Plan) -> None:
        self.view = view
        self.tables: Sequence[TableSpec] = ()
        self.messages: list[Addressed] = []
        self._plan = plan
        self._whole: set[int] = set()  # servers that have all copies of this view
        self._resting: set[int] | None = None  # servers that are asked to rest and do not yet, once any is
        self._taken: set[int] = set()  # ranks that have this view
        self._release = False  # whether servers may hold shards that are others' now
        self._identities = set(view.workers)  # that a worker ever had

    @property
    def settled(self) -> bool:
        """Whether no copy is on its way."""
        return self.view.ring == self.view.target

    # --- deaths -----------------------------------------------------------------------------------------------------

    def lost(self, rank: int) -> str:
        """A rank is dead; what is done about it, in words.

        Raises
        ------
        BeyondRedundancy
            when the job can't go on without it.
        """
        view, text = self._without(rank)
        self._take(view)
        return text

    def can_do_without(self, rank: int) -> bool:
        """Whether the job could go on if a rank were dead."""
        try:
            self._without(rank)
        except BeyondRedundancy:
            return False
        return True

    def _without(self, rank: int) -> tuple[View, str]:
        view = self.view
        lost = sorted({*view.lost, rank})
        spares = [spare for spare in view.spares if spare != rank]
        scheduler = view.scheduler
        done: list[str] = []
        if rank == scheduler:
            scheduler = next((standby for standby in view.standbys if standby not in lost), -1)
            if scheduler < 0:
                raise BeyondRedundancy("the scheduler and all its standbys are dead")
            spares = [spare for spare in spares if spare != scheduler]
            done.append(f"rank {scheduler} is the scheduler now")
        new = msgspec.structs.replace(view, number=view.number + 1, scheduler=scheduler, spares=spares, lost=lost)
        if rank in (*view.ring.values(), *view.target.values()):
            new, text = self._without_server(new, rank)
            done.append(text)
        if rank in view.parts and self._plan.data is None:
            new = msgspec.structs.replace(new, parts=[scheduler if part == rank else part for part in new.parts])
        elif rank in view.parts:
            new, text = self._without_data_server(new, rank)
            done.append(text)
        if rank in view.workers:
            new, text = self._without_worker(new, rank)
            done.append(text)
        return new, "; ".join(done) or "it had no part in the work"

    def _without_server(self, view: View, rank: int) -> tuple[View, str]:
        text, spares, target = "", list(view.spares), dict(view.target)
        for place in [place for place, server in target.items() if server == rank]:
            spare = self._best_spare(view, spares)
            if spare is None:
                del target[place]
                text = "no spare is left, the other servers share its load"
            else:
                spares.remove(spare)
                target[place] = spare
                text = f"spare {spare} takes its place"
        if not target:  # those that were to leave stay
            target = {place: server for place, server in view.ring.items() if server not in view.lost}
        if not target:
            raise BeyondRedundancy("no server is left")
        ring = view.ring if self.tables else dict(target)
        view = msgspec.structs.replace(view, spares=spares, ring=ring, target=target)
        for table in self.tables:
            if (chains_of(view, table).heads < 0).any():
                raise BeyondRedundancy(f'no copy is left of some shards of table "{table.name}"')
        return view, text or "its copies had not been needed yet"

    @staticmethod
    def _best_spare(view: View, spares: Sequence[int]) -> int | None:
        """A spare for a server: on the node with the fewest of them."""
        on_node = dict.fromkeys(view.nodes, 0)
        for server in view.servers:
            on_node[view.nodes[server]] += 1
        return min(spares, key=lambda spare: (on_node[view.nodes[spare]], spare), default=None)

    def _without_data_server(self, view: View, rank: int) -> tuple[View, str]:
        living = [part for part in dict.fromkeys(view.parts) if part not in view.lost]
        if view.spares:
            heir, spares = view.spares[0], view.spares[1:]
            text = f"spare {heir} serves its data"
        else:
            fit = living or [view.scheduler]
            heir, spares = min(fit, key=lambda other: (view.parts.count(other), other)), view.spares
            text = f"rank {heir} serves its data too"
        parts = [heir if part == rank else part for part in view.parts]
        return msgspec.structs.replace(view, parts=parts, spares=spares), text

    def _without_worker(self, view: View, rank: int) -> tuple[View, str]:
        group = view.group_of(rank)
        at = view.groups[group].index(rank)
        ranks, identities, since = (list(each[group]) for each in (view.groups, view.identities, view.since))
        replay = self._runs_program(group)
        if self._plan.on_worker_loss == "replace" and view.spares:
            spare, spares = view.spares[0], view.spares[1:]
            ranks[at], since[at] = spare, view.number
            if not replay:
                identities[at] = self._new_identity(view, spare)
            text = f"spare {spare} runs its program again" if replay else f"spare {spare} works in its place"
        else:
            if group == MAIN and replay and self._plan.on_worker_loss == "redistribute":
                raise BeyondRedundancy('no other can go on with its program; on_worker_loss = "replace" needs spares')
            if group == MAIN and replay and self._plan.on_worker_loss == "replace":
                raise BeyondRedundancy("no spare is left to run its program again")
            team = [rank, *(mate for mate in view.team_of(rank) if mate != rank)]
            spares = sorted([*view.spares, *team[1:]])
            first = at // len(team) * len(team)
            for places in (ranks, identities, since):
                del places[first : first + len(team)]
            text = "the others do its work" if self._plan.on_worker_loss != "ignore" else "its work is left undone"
            if len(team) > 1:
                text = f"its team is dissolved, {text}"
            if group != MAIN:
                text = f'the group "{group}" goes on without it' if ranks else f'the group "{group}" is gone'
        if group == MAIN and not ranks:
            raise BeyondRedundancy("no worker is left" if view.team == 1 else "no whole team of workers is left")
        return _with_workers(view, group, ranks, identities, since, spares), text

    def _new_identity(self, view: View, rank: int) -> int:
        """For a rank that becomes a worker: its own number; or, since the steps of that are used up when it was one
        before, one that no rank has.
        """
        identity = rank if rank not in self._identities else view.number * len(view.nodes) + rank
        self._identities.add(identity)
        return identity

    def _runs_program(self, group: str) -> bool:
        """Whether what the workers of a group do follows from their program, not from what they are handed."""
        return self._plan.data is None or self._plan.keeps_rows or group != MAIN

    def may_begin_anew(self, group: str) -> bool:
        """Whether a rank may still come to run a group's program from the beginning: a spare, or who may yet be one, in
        the place of a worker that dies or in addition to those that there are.
        """
        hands_out = not self._runs_program(MAIN)
        wanted = self._plan.on_worker_loss == "replace" or (group == MAIN and hands_out)
        leaving = len(self.view.servers) > 1 or (hands_out and len(self.view.groups[MAIN]) > 1)
        return wanted and (bool(self.view.spares) or leaving)

    # --- more and fewer ---------------------------------------------------------------------------------------------

    def scale(self, servers: int | None, workers: int | None) -> str:
        """Have another number of servers and of workers of the main group; what is done, in words.

        Raises
        ------
        CannotScale
            when that is not possible; nothing is changed.
        """
        view, done = self.view, []
        new = msgspec.structs.replace(view, number=view.number + 1)
        if servers is not None:
            new, text = self._servers(new, servers)
            done.append(text)
        if workers is not None:
            new, text = self._workers(new, workers)
            done.append(text)
        if msgspec.structs.replace(new, number=view.number) != view:
            self._take(new)
        return "; ".join(done)

    def _servers(self, view: View, count: int) -> tuple[View, str]:
        target, spares = dict(view.target), list(view.spares)
        if count < 1:
            raise CannotScale("a job needs a server")
        if count - len(target) > len(spares):
            raise CannotScale(f"{count} servers need {_missing(count - len(target), len(spares))}")
        while len(target) < count:
            spare = self._best_spare(view, spares)
            assert spare is not None
            spares.remove(spare)
            target[max({*view.ring, *target, *view.ring.values(), *target.values()}) + 1] = spare
        leave = sorted(target, key=lambda place: (target[place] == view.scheduler, place))[count:]
        for place in leave:
            del target[place]
        text = f"{len(view.target)} to {count} servers" if count != len(view.target) else f"{count} servers already"
        return msgspec.structs.replace(view, target=target, spares=spares), text

    def _workers(self, view: View, count: int) -> tuple[View, str]:
        ranks, identities, since = (list(each[MAIN]) for each in (view.groups, view.identities, view.since))
        spares = list(view.spares)
        if count == len(ranks):
            return view, f"{count} workers already"
        if self._runs_program(MAIN):
            raise CannotScale("the workers run a program together: it can't have more or fewer of them while it runs")
        if count < 1:
            raise CannotScale("a job needs a worker")
        if count % view.team:
            raise CannotScale(f"the network is in {view.team} partitions: {count} workers are no whole teams of them")
        if count - len(ranks) > len(spares):
            raise CannotScale(f"{count} workers need {_missing(count - len(ranks), len(spares))}")
        text = f"{len(ranks)} to {count} workers"
        while len(ranks) < count:
            ranks.append(spares.pop(0))
            identities.append(self._new_identity(view, ranks[-1]))
            since.append(view.number)
        spares = sorted([*spares, *ranks[count:]])
        return _with_workers(view, MAIN, ranks[:count], identities[:count], since[:count], spares), text

    # --- new ranks --------------------------------------------------------------------------------------------------

    def add(self, node: int, came: bool) -> None:
        """There is one rank more, on a node, and a spare; one that never `came` counts as lost, and leaves a gap."""
        view, rank = self.view, len(self.view.nodes)
        spares, lost = ([*view.spares, rank], view.lost) if came else (view.spares, [*view.lost, rank])
        nodes = [*view.nodes, node]
        self._take(msgspec.structs.replace(view, number=view.number + 1, nodes=nodes, spares=spares, lost=lost))

    # --- steps ------------------------------------------------------------------------------------------------------

    def _take(self, view: View) -> None:
        """A view is in force from now on. When no copy is on its way, whoever has nothing to do is a spare."""
        if view.ring == view.target:
            view = msgspec.structs.replace(view, spares=self._idle(view))
        if view.servers != self.view.servers or view.ring != self.view.ring or view.target != self.view.target:
            self._release = True
        self.view = with_standbys(view, self._plan)
        self._whole, self._resting, self._taken = set(), None, set()
        self.messages += [(rank, NewView(self.view)) for rank in self._living()]

    def _living(self) -> list[int]:
        return [rank for rank in range(len(self.view.nodes)) if rank not in self.view.lost]

    def copies_whole(self, rank: int, number: int) -> None:
        """A server has all copies that a view has it make."""
        if number != self.view.number or self.settled:
            return
        self._whole.add(rank)
        if not self._whole.issuperset(self.view.servers):
            return
        if self._resting is None:
            self._resting = self._changing()
            self.messages += [(server, Drain(number)) for server in sorted(self._resting)]
            if not self._resting:
                self._settle()

    def _changing(self) -> set[int]:
        """The servers in whose chains a copy does not count yet, or another is at the head than will be."""
        settled = msgspec.structs.replace(self.view, ring=self.view.target)
        return {
            server
            for table in self.tables
            for now, then in zip(chains_of(self.view, table).chains, chains_of(settled, table).chains, strict=True)
            if now != then
            for server in now.servers
        }

    def drained(self, rank: int, number: int) -> None:
        """A server rests, and all that it has applied is at every copy."""
        if number != self.view.number or self._resting is None:
            return
        self._resting.discard(rank)
        if not self._resting:
            self._settle()

    def _settle(self) -> None:
        """The copies are where the target has them: that is the ring now."""
        self._take(msgspec.structs.replace(self.view, number=self.view.number + 1, ring=dict(self.view.target)))

    @staticmethod
    def _idle(view: View) -> list[int]:
        """Living ranks that have nothing to do."""
        busy = {view.scheduler, *view.parts, *view.workers, *view.servers, *view.lost}
        return [rank for rank in range(len(view.nodes)) if rank not in busy]

    def taken(self, rank: int, number: int) -> None:
        """A rank acts by a view."""
        if number != self.view.number:
            return
        self._taken.add(rank)
        if self._release and self.settled and self._taken.issuperset(self._living()):
            self._release = False
            self.messages += [(server, Release(number)) for server in [*self.view.servers, *self.view.spares]]


def _with_workers(
    view: View, group: str, ranks: list[int], identities: list[int], since: list[int], spares: list[int]
) -> View:
    """With others in the places of a group, and as spares."""
    return msgspec.structs.replace(
        view,
        groups=view.groups | {group: ranks},
        identities=view.identities | {group: identities},
        since=view.since | {group: since},
        spares=spares,
    )


def _missing(needed: int, there: int) -> str:
    return f"{needed} spares, there are {there}: have more started by mpips scale RUN spares=+{needed - there}"
