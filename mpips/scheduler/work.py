"""Handing out work: to whoever asks, what the dead have left first, and what runs late a second time. Pure.

Of a team the first member asks; all are given what it is given, and a workload is done when each has said so.
"""

from typing import Any

from mpips import messages as m
from mpips.plan import Plan
from mpips.scheduler.delays import Delays
from mpips.scheduler.effects import Effects
from mpips.scheduler.ledger import Batches, Done, Ledger, Rounds
from mpips.scheduler.rows import Rows
from mpips.scheduler.tally import Tally
from mpips.views.places import Places
from mpips.views.view import MAIN, View

RENAMED = 1 << 32  # more than any place's identity
NOTHING = m.WorkDone(0, 0, 0.0, b"")  # what is known of a workload that nobody does


class Work:
    """The workloads of all groups.

    Parameters
    ----------
    plan, view, places : the job, who does what, and where workers stand.
    tally : counts what is done.
    effects : takes messages and events.

    Attributes
    ----------
    delays : the delay in force.
    stopped : whether no more work is given.
    """

    def __init__(self, plan: Plan, view: View, places: Places, tally: Tally, effects: Effects) -> None:
        self.delays = Delays(plan, len(view.teams))
        self.stopped = False
        self._plan = plan
        self._groups = list(view.groups)
        self._view = view
        self._places = places
        self._tally = tally
        self._effects = effects
        self._ledger: Ledger | None = None
        self._rows: Rows | None = None
        self._rounds: dict[str, Rounds] = {}
        self._hungry: list[int] = []
        self._parts: dict[int, set[int]] = {}  # of workloads that a team is at: the members' numbers that have said so
        self._led: dict[int, int] = {}  # of the lost: who had asked for the work of its team
        self._renamed: dict[int, int] = {}  # identities that are others than the places', by worker
        self._late_at: float | None = None

    def begin(self, batches: list[Batches], progress: dict[str, Any] | None, now: float) -> None:
        """Training begins, or goes on from a checkpoint."""
        plan, workers = self._plan, self._view.teams
        self.delays.begin(now)
        if plan.data is None:
            return
        if plan.keeps_rows:
            self._ledger = Ledger(batches, 1, 0, plan.seed, len(workers))
            self._rows = Rows(self._ledger, self._places.workers(MAIN))
        else:
            self._ledger = Ledger(
                batches,
                plan.passes,
                plan.evaluate_every,
                plan.seed,
                len(workers),
                self.delays.delay,
                plan.epoch_share,
                progress,
                plan.workloads,
            )
        self._rounds = {name: Rounds(batches) for name in self._groups if name != MAIN}

    @property
    def under_way(self) -> bool:
        """Whether a worker of the main group has any."""
        return self._ledger is not None and self._ledger.under_way

    @property
    def finished_epochs(self) -> int:
        """Epochs that are over."""
        return self._ledger.finished_epochs if self._ledger is not None else 0

    def progress(self) -> dict[str, Any]:
        """What is done, for a checkpoint."""
        return self._ledger.progress() if self._ledger is not None else {}

    def cut(self, generation: int) -> tuple[dict[str, Any], set[int]]:
        """As `Ledger.cut`."""
        return self._ledger.cut(generation) if self._ledger is not None else ({}, set())

    def is_open(self, number: int) -> bool:
        """As `Ledger.is_open`."""
        return self._ledger is not None and self._ledger.is_open(number)

    # --- handing out ------------------------------------------------------------------------------------------------

    def request(self, worker: int, now: float) -> None:
        """A worker asks for work."""
        self._hungry.append(worker)
        self.feed(now)

    def feed(self, now: float) -> None:
        """Give those that ask for work what there is."""
        if self._ledger is None or self.stopped:
            return
        hungry, self._hungry = self._hungry, []
        for worker in sorted(hungry, key=self._turn) if self._rows is not None else hungry:
            answer = self._answer(self._ledger, worker, now) or self._late(self._ledger, worker, now)
            if answer is not None:
                for member in self._view.team_of(worker):
                    self._effects.send(member, answer)
            else:
                self._hungry.append(worker)
        self._late_at = self._next_late(self._ledger, now) if self._hungry else None

    def _rounds_of(self, worker: int) -> Rounds | None:
        """Where a worker's workloads are from, if not from the ledger."""
        return self._rounds.get(self._places.group(worker) or MAIN)

    def _turn(self, worker: int) -> int:
        assert self._rows is not None
        return self._rows.turn(self._places.of(worker)) if self._places.group(worker) == MAIN else 0

    def _answer(self, ledger: Ledger, worker: int, now: float) -> m.Workload | m.NoMoreWork | None:
        """What a worker gets now, if anything. No more work, said once, ends rows that are kept; said again, the
        evaluation. It is not said while work may come back from a worker that dies.
        """
        rounds = self._rounds_of(worker)
        if rounds is not None:
            return rounds.next(worker, now)
        if self._rows is not None and not self._rows.has_all(worker):
            return self._rows.next(worker, self._places.of(worker), now)
        identity = self._renamed.get(worker, self._places.of(worker))
        return ledger.next(worker, now, identity) or (m.NoMoreWork() if ledger.over else None)

    def _late(self, ledger: Ledger, worker: int, now: float) -> m.Workload | None:
        """A workload that runs late, for a worker that would only wait."""
        late = (self._rounds_of(worker) or ledger).late(worker, now)
        if late is None:
            return None
        self._effects.log(
            "straggler",
            rank=late.holder,
            workload=late.workload.number,
            epoch=late.workload.epoch,
            seconds=round(now - late.since, 4),
            usual=round(late.usual, 4),
            by=worker,
        )
        return late.workload

    def _next_late(self, ledger: Ledger, now: float) -> float | None:
        """When the next workload runs late; for one that does already nobody is free before another is done."""
        times = [ledger.late_at(now), *(rounds.late_at(now) for rounds in self._rounds.values())]
        return min((at for at in times if at is not None), default=None)

    def due(self, now: float) -> bool:
        """Whether something may have become late."""
        return self._late_at is not None and now >= self._late_at and not self.stopped

    # --- what is done -----------------------------------------------------------------------------------------------

    def done(self, worker: int, message: m.WorkDone, now: float) -> Done | None:
        """A worker has finished a workload; None when that is known already, or a part of it is missing."""
        if self._ledger is None or not self._is_whole(worker, message.number):
            return None
        done = (self._rounds_of(worker) or self._ledger).done(worker, message.number, now)
        if done is None:
            return None
        for other in done.others:
            if len(self._view.team_of(other)) == 1:  # a team can't agree on the batch to stop at
                self._effects.send(other, m.Cancelled(message.number))
        if done.workload.train:
            self._trained(self._ledger, done, message, now)
        return done

    def _is_whole(self, worker: int, number: int) -> bool:
        """Whether every member of a team has done its part of a workload, whichever rank it was."""
        team = self._view.team_of(worker)
        if len(team) == 1 or not self.is_open(number):
            return True
        parts = self._parts.setdefault(number, set())
        parts.add(team.index(worker))
        if len(parts) < len(team):
            return False
        del self._parts[number]
        return True

    def _trained(self, ledger: Ledger, done: Done, message: m.WorkDone, now: float) -> None:
        epoch, batches = done.workload.epoch, len(done.workload.batches)
        self._tally.add(epoch, message.rows, message.loss, now)
        ledger.delay = self.delays.done(batches, message.rows, message.loss, message.waited, now)
        if done.ends:
            self._effects.log("epoch", epoch=epoch, loss=self._tally.end_epoch(epoch), examples=self._tally.examples)

    # --- who is there -----------------------------------------------------------------------------------------------

    def viewed(self, old: View, new: View, now: float) -> None:
        """There is a new view, perhaps without some workers: what they had goes to others, or is left undone."""
        self._view = new
        gone = [worker for worker in old.workers if worker not in new.workers]
        self._hungry = [worker for worker in self._hungry if worker not in gone]
        if self._ledger is None:
            return
        self._ledger.workers = self.delays.workers = max(1, len(new.teams))
        if self._rows is not None:
            self._rows.viewed(self._places.workers(MAIN))
        for worker in gone:
            group = old.group_of(worker)
            if group != MAIN:
                self._rounds[group].lost(worker)
        self._parts = {number: parts for number, parts in self._parts.items() if self.is_open(number)}
        for team in [team for team in old.teams if team not in new.teams]:
            self._led |= dict.fromkeys(set(team) & set(gone), team[0])
            self._renamed.pop(team[0], None)
            if team[0] in new.groups[MAIN]:  # what it is given now may be done before what it had
                self._renamed[team[0]] = RENAMED + (new.number << 20) + team[0]
            ignored = set(team) & set(new.lost) and self._plan.on_worker_loss == "ignore"
            for done in self._ledger.lost(team[0], now, again=not ignored):
                self._trained(self._ledger, done, NOTHING, now)
        if self._ledger.over and new.team > 1:  # who asks for a team that is new was told so before
            for worker in set(new.groups[MAIN]) - set(old.groups[MAIN]):
                self._effects.send(worker, m.NoMoreWork())
        self.feed(now)

    def owed(self, worker: int) -> tuple[int, int]:
        """Of the workloads that a worker left when it was lost: how many nobody has taken on, and how many are not
        done; a group of which nobody is left owes nothing.
        """
        if self._ledger is None:
            return 0, 0
        worker = self._led.get(worker, worker)
        rounds = [rounds for group, rounds in self._rounds.items() if self._places.workers(group)]
        parts = [self._ledger.owed(worker), *(each.owed(worker) for each in rounds)]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)
