"""Workers that die and workers that are slow, at any moment: every batch counts once an epoch, and all comes to an end.

A worker here pushes once a batch, to a server that knows each identity's last step, as servers do.
"""

from collections import Counter, deque

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mpips.scheduler.ledger import Batches, Ledger, Rounds
from mpips.scheduler.outstanding import FEWEST, GRACE, LATE, Outstanding
from mpips.worker.steps import Steps


class Crew:
    """Workers, what each has to do, and what is on its way from and to them."""

    def __init__(self, sizes, passes, every, workers, delay=None, share=1.0):
        data = [Batches(part, train, test) for part, (train, test) in enumerate(sizes)]
        self.sizes, self.passes, self.every = sizes, passes, every
        self.ledger = Ledger(data, passes, every, 0, workers, delay, share)
        self.now = 0.0
        self.names = workers
        self.inboxes = {name: deque() for name in range(workers)}  # workloads, and numbers of cancelled ones
        self.doing = {name: deque() for name in range(workers)}  # (workload, place of its next batch)
        self.steps = {name: Steps(name) for name in range(workers)}
        self.reports = deque()  # (worker, number), on their way
        self.hungry = set(self.inboxes)
        self.clock = Counter()  # of the server
        self.applied = Counter()  # (epoch, part, batch)
        self.evaluated = Counter()
        self.ended = []

    def living(self, which):
        return sorted(self.inboxes)[which % len(self.inboxes)]

    def feed(self):
        for worker in sorted(self.hungry):
            workload = self.ledger.next(worker, self.now)
            if workload is None and (late := self.ledger.late(worker, self.now)):
                assert late.holder in self.inboxes
                event("done a second time")
                workload = late.workload
            if workload is not None:
                self.hungry.discard(worker)
                self.inboxes[worker].append(workload)

    def work(self, worker):
        """A worker takes in what has come, and does its next batch."""
        inbox, doing, steps = self.inboxes[worker], self.doing[worker], self.steps[worker]
        while inbox:
            message = inbox.popleft()
            if isinstance(message, int):
                for workload, _ in [each for each in doing if each[0].number == message]:
                    steps.pass_by(workload.identity, workload.first + len(workload.batches) - 1)
                doing = self.doing[worker] = deque(each for each in doing if each[0].number != message)
            else:
                doing.append((message, 0))
        if not doing:
            return
        workload, place = doing[0]
        batch = workload.epoch, workload.part, workload.batches[place]
        if workload.train:
            steps.begin_batch(workload.identity, workload.first + place)
            identity, step, _ = steps.next()
            steps.end_batch()
            if step > self.clock[identity]:
                self.clock[identity] = step
                self.applied[batch] += 1
        doing[0] = workload, place + 1
        if place + 1 == len(workload.batches):
            doing.popleft()
            self.reports.append((worker, workload.number))
            self.hungry.add(worker)

    def report(self):
        """The oldest report on its way arrives; those of the dead are not listened to."""
        worker, number = self.reports.popleft()
        if worker in self.inboxes:
            self.take(self.ledger.done(worker, number, self.now))

    def take(self, done):
        if done is None:
            return
        workload = done.workload
        for other in done.others:
            self.inboxes[other].append(workload.number)
        if not workload.train:
            self.evaluated.update((workload.epoch, workload.part, batch) for batch in workload.batches)
        if done.ends:
            self.ended.append((workload.epoch, workload.train))

    def lose(self, worker, again=True, replaced=True):
        if len(self.inboxes) == 1 and not replaced:
            return
        for things in (self.inboxes, self.doing, self.steps):
            del things[worker]
        self.hungry.discard(worker)
        for done in self.ledger.lost(worker, self.now, again):
            self.take(done)
        if replaced:
            new, self.names = self.names, self.names + 1
            self.inboxes[new], self.doing[new], self.steps[new] = deque(), deque(), Steps(new)
            self.hungry.add(new)

    def step(self, kind, which):
        worker = self.living(which)
        if kind == "work":
            self.work(worker)
        elif kind == "report" and self.reports:
            self.report()
        elif kind == "feed":
            self.feed()
        elif kind == "die":
            self.lose(worker)
        elif kind == "leave":
            self.lose(worker, replaced=False)
        elif kind == "time":
            self.now += 0.01 * which

    def to_the_end(self):
        for turn in range(100_000):
            if self.ledger.over and not self.ledger.under_way:
                return
            self.now += 0.02
            self.feed()
            for worker in sorted(self.inboxes):
                if worker != min(self.inboxes) or turn % 8 == 0:  # which is slow
                    self.work(worker)
            while self.reports:
                self.report()
        raise AssertionError("the work never ends")

    @property
    def every_train_batch(self):
        return {
            (epoch, part, batch)
            for epoch in range(1, self.passes + 1)
            for part, (train, _) in enumerate(self.sizes)
            for batch in range(train)
        }


SIZES = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=1, max_size=3)
KINDS = ["work"] * 6 + ["report"] * 3 + ["feed"] * 3 + ["time", "die", "leave"]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 20)), max_size=250)
SETTINGS = {
    "sizes": SIZES,
    "passes": st.integers(1, 3),
    "every": st.integers(0, 2),
    "workers": st.integers(1, 4),
    "delay": st.none() | st.integers(0, 6),
    "steps": STEPS,
}


@settings(max_examples=400, deadline=None)
@given(**SETTINGS)
def test_every_batch_counts_once_an_epoch_whoever_dies_or_is_slow(sizes, passes, every, workers, delay, steps):
    crew = Crew(sizes, passes, every, workers, delay)
    for kind, which in steps:
        crew.step(kind, which)
    crew.to_the_end()
    assert crew.applied == dict.fromkeys(crew.every_train_batch, 1)
    epochs = [e for e in range(1, passes + 1) if e == passes or (every and e % every == 0)]
    tests = [(e, p, n + b) for e in epochs for p, (n, m) in enumerate(sizes) for b in range(m)]
    assert crew.evaluated == dict.fromkeys(tests, 1)
    assert len(crew.ended) == len(set(crew.ended))


@settings(max_examples=200, deadline=None)
@given(**SETTINGS, share=st.floats(0.3, 0.95))
def test_an_epoch_that_ends_early_waits_for_its_share_and_no_batch_counts_twice(
    sizes, passes, every, workers, delay, steps, share
):
    crew = Crew(sizes, passes, every, workers, delay, share)
    for kind, which in steps:
        crew.step(kind, which)
    crew.to_the_end()
    assert set(crew.applied.values()) <= {1}
    train = sum(n for n, _ in sizes)
    for epoch in range(1, passes + 1):
        assert sum(1 for e, _, _ in crew.applied if e == epoch) >= share * train - 1e-9
    assert sorted(epoch for epoch, of_train in crew.ended if of_train) == list(range(1, passes + 1))


@settings(max_examples=200, deadline=None)
@given(**SETTINGS)
def test_what_is_ignored_is_not_done_again_and_does_not_hold_the_epoch_up(sizes, passes, every, workers, delay, steps):
    crew = Crew(sizes, passes, every, workers, delay)
    for kind, which in steps:
        if kind in ("die", "leave"):
            crew.lose(crew.living(which), again=False, replaced=kind == "die")
        else:
            crew.step(kind, which)
    crew.to_the_end()
    assert set(crew.applied.values()) <= {1}
    assert set(crew.applied) <= crew.every_train_batch
    assert crew.ledger.finished_epochs == passes


# --- outstanding ---


def given_one(outstanding, worker, now=0.0, batches=4):
    return outstanding.give(worker, worker, 1, True, 0, list(range(batches)), now)


def test_the_workloads_of_an_identity_are_done_again_one_after_the_other_and_in_order():
    outstanding = Outstanding()
    first, second = given_one(outstanding, 4), given_one(outstanding, 4)
    assert (first.identity, first.first, second.first) == (4, 1, 5)
    assert outstanding.lost(4) == [first, second]
    assert outstanding.again(5, 1.0) == first
    assert outstanding.again(6, 1.0) is None  # servers take nothing of the second before all of the first
    assert outstanding.lost(5) == [first]
    assert outstanding.again(6, 2.0) == first
    outstanding.done(6, first.number, 3.0)
    assert outstanding.again(7, 3.0) == second


def busy(seconds=0.1, batches=4):
    """Workers 4 and 5 have done some, each in so many seconds a batch."""
    outstanding, now = Outstanding(), 0.0
    for _ in range(FEWEST):
        workload = given_one(outstanding, 4, now, batches)
        now += seconds * batches
        outstanding.done(4, workload.number, now)
    return outstanding, now


def test_a_workload_that_takes_several_times_as_long_as_others_is_late():
    outstanding, now = busy()
    slow = given_one(outstanding, 4, now)
    due = now + LATE * 0.4 + GRACE
    assert outstanding.late_at(now) == pytest.approx(due)
    assert outstanding.late(5, due - 0.01) is None
    late = outstanding.late(5, due + 0.01)
    assert (late.workload, late.holder, late.usual) == (slow, 4, pytest.approx(0.4))
    assert outstanding.late(6, due + 9) is None  # two are enough
    assert outstanding.done(5, slow.number, due + 1) == (slow, [4])
    assert outstanding.done(4, slow.number, due + 2) is None


def test_a_small_workload_is_not_late_because_a_machine_has_a_hiccup():
    outstanding, now = busy(1e-4)
    given_one(outstanding, 4, now)
    assert outstanding.late(5, now + 0.04) is None
    assert outstanding.late(5, now + 0.06) is not None


def test_the_time_of_a_workload_counts_from_when_the_one_before_it_was_done():
    outstanding, now = busy()
    first, second = given_one(outstanding, 4, now), given_one(outstanding, 4, now)
    outstanding.done(4, first.number, now + 1.0)
    assert outstanding.late(5, now + 2.0) is None
    assert outstanding.late(5, now + 2.3).workload == second


def test_nothing_is_late_before_it_is_known_what_is_usual_and_a_worker_with_work_gets_no_more_of_it():
    outstanding = Outstanding()
    given_one(outstanding, 4)
    assert outstanding.late(5, 1e6) is None
    outstanding, now = busy()
    given_one(outstanding, 4, now)
    given_one(outstanding, 5, now)
    assert outstanding.late(5, now + 1e6) is None
    assert outstanding.late(6, now + 1e6) is not None


def test_when_either_of_two_that_do_the_same_dies_the_other_goes_on():
    for dies in (4, 5):
        outstanding, now = busy()
        slow = given_one(outstanding, 4, now)
        assert outstanding.late(5, now + 10).workload == slow
        assert outstanding.lost(dies) == []
        assert outstanding.again(6, now + 11) is None
        assert outstanding.done(9 - dies, slow.number, now + 12) == (slow, [])


def test_what_is_left_of_an_epoch_that_is_over_is_neither_done_again_nor_done_twice():
    outstanding, now = busy()
    slow, left = given_one(outstanding, 4, now), given_one(outstanding, 5, now)
    outstanding.lost(5)
    assert outstanding.close(1, True) == len(slow.batches) + len(left.batches)
    assert outstanding.again(6, now) is None
    assert outstanding.late(6, now + 100) is None
    assert outstanding.done(4, slow.number, now + 100) == (slow, [])
    dying = given_one(outstanding, 4, now + 100)
    outstanding.close(1, True)
    assert outstanding.lost(4) == []
    assert outstanding.again(6, now + 101) is None
    assert outstanding.done(4, dying.number, now + 102) is None


def test_the_next_epoch_is_handed_out_although_some_of_one_that_ended_early_is_under_way():
    ledger = Ledger([Batches(0, 8, 0)], 2, 0, 0, 2, delay=1, share=0.5)
    slow = ledger.next(1, 0.0)
    while ledger.epoch == 1:
        workload = ledger.next(2, 0.0)
        if workload is not None and workload.epoch == 1:
            done = ledger.done(2, workload.number, 0.0)
    assert done.ends
    assert workload.epoch == 2
    assert ledger.next(3, 0.0).epoch == 2  # the delay is that of this epoch's batches alone
    assert ledger.done(1, slow.number, 0.0).ends is False


def test_a_slow_worker_is_an_epoch_behind_at_most_and_then_others_do_its_work():
    ledger, now = Ledger([Batches(0, 16, 0)], 5, 0, 0, 2), 0.0
    slow = ledger.next(1, now)
    while (workload := ledger.next(2, now)) is not None:
        now += 1e-3
        ledger.done(2, workload.number, now)
    assert ledger.epoch == 2
    assert ledger.next(2, now) is None
    assert ledger.late(2, now + 1.0).workload == slow
    ledger.done(2, slow.number, now + 1.0)
    assert ledger.next(2, now + 1.0).epoch == 3


def test_what_a_lost_worker_has_left_is_owed_until_it_is_done():
    outstanding = Outstanding()
    first, second = given_one(outstanding, 4), given_one(outstanding, 4)
    assert outstanding.owed(4) == (0, 0)
    outstanding.lost(4)
    assert outstanding.owed(4) == (2, 2)
    outstanding.again(5, 0.0)
    assert outstanding.owed(4) == (1, 2)
    outstanding.done(5, first.number, 0.0)
    outstanding.again(5, 0.0)
    outstanding.done(5, second.number, 0.0)
    assert outstanding.owed(4) == (0, 0)


# --- rounds ---


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "finish", "die"]), st.integers(0, 9)), max_size=80))
def test_a_round_has_every_test_batch_once_whoever_dies(steps):
    rounds, out, ended, now = Rounds([Batches(0, 5, 130), Batches(1, 0, 2)]), [], [], 0.0
    seen = {}
    for kind, which in [*steps, *[("take", 0), ("finish", 0)] * 40]:
        if kind == "take":
            workload = rounds.next(which, now)
            if workload is not None:
                out.append((which, workload))
        elif kind == "finish" and out:
            worker, workload = out.pop(which % len(out))
            done = rounds.done(worker, workload.number, now)
            seen.setdefault(workload.epoch, []).extend((workload.part, batch) for batch in workload.batches)
            if done.ends:
                ended.append(workload.epoch)
        elif kind == "die":
            rounds.lost(which)
            out = [each for each in out if each[0] != which]
    every = sorted([(0, 5 + i) for i in range(130)] + [(1, 0), (1, 1)])
    assert ended == list(range(1, len(ended) + 1))
    assert len(ended) >= 1
    assert all(sorted(seen[number]) == every for number in ended)
