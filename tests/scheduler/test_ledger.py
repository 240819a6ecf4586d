"""Every batch once an epoch, whoever finishes when, and through any number of restarts."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.scheduler.ledger import Batches, Ledger, Rounds

WORKER = 1
BATCHES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), min_size=1, max_size=3)


class Course:
    """Workers that take workloads and finish them in any order; what was trained and evaluated, and when."""

    def __init__(self, batches, passes, every, seed, workers, delay=None):
        self.sizes, self.settings, self.delay = batches, (passes, every, seed, workers), delay
        self.ledger = self.make(batches)
        self.out = []
        self.trained = Counter()
        self.evaluated = []
        self.finished = []  # train workloads as (epoch, part, first batch)

    def make(self, batches, progress=None):
        passes, every, seed, workers = self.settings
        data = [Batches(part, train, test) for part, (train, test) in enumerate(batches)]
        return Ledger(data, passes, every, seed, workers, self.delay, progress=progress)

    def take(self):
        workload = self.ledger.next(WORKER, 0.0)
        if workload is not None:
            if workload.train:
                assert not self.ledger.evaluating
                unfinished = sum(len(other.batches) for other in self.out)
                assert self.delay is None or unfinished + len(workload.batches) <= self.delay + 1
                assert not any(not other.train for other in self.out)
            else:
                assert not any(other.train for other in self.out)  # an evaluation waits for every push
                assert all(
                    self.trained[workload.epoch, place, b] for place, (n, _) in enumerate(self.sizes) for b in range(n)
                )
            self.out.append(workload)
        return workload

    def finish(self, which):
        workload = self.out.pop(which % len(self.out))
        place = workload.part
        done = self.ledger.done(WORKER, workload.number, 0.0)
        assert (done.workload, done.others) == (workload, [])
        assert self.ledger.done(WORKER, workload.number, 0.0) is None
        if workload.train:
            self.finished.append((workload.epoch, place, workload.batches[0]))
            self.trained.update((workload.epoch, place, batch) for batch in workload.batches)
        else:
            self.evaluated += [(workload.epoch, place, batch) for batch in workload.batches]

    def restart(self):
        """From a checkpoint written now: what was under way is lost."""
        self.out = []
        self.ledger = self.make(self.sizes, json.loads(json.dumps(self.ledger.progress())))

    def to_the_end(self):
        while True:
            while self.take():
                pass
            if not self.out:
                return
            self.finish(0)

    def check(self):
        passes, every, _, _ = self.settings
        assert self.ledger.over
        assert self.ledger.finished_epochs == passes
        every_batch = {(e, p, b) for e in range(1, passes + 1) for p, (n, _) in enumerate(self.sizes) for b in range(n)}
        assert set(self.trained) == every_batch
        assert set(self.trained.values()) <= {1}
        epochs = [e for e in range(1, passes + 1) if e == passes or (every and e % every == 0)]
        tests = {(e, p, n + b) for e in epochs for p, (n, m) in enumerate(self.sizes) for b in range(m)}
        assert set(self.evaluated) == tests
        return tests


SETTINGS = {
    "batches": BATCHES,
    "passes": st.integers(1, 4),
    "every": st.integers(0, 3),
    "seed": st.integers(0, 9),
    "workers": st.integers(1, 5),
    "delay": st.none() | st.integers(0, 20),
    "steps": st.lists(st.integers(0, 50), max_size=300),
}


@settings(max_examples=150)
@given(**SETTINGS)
def test_every_batch_is_trained_once_an_epoch_and_evaluated_when_it_should_be(
    batches, passes, every, seed, workers, delay, steps
):
    course = Course(batches, passes, every, seed, workers, delay)
    for step in steps:
        if step % 2 or not course.out:
            course.take()
        else:
            course.finish(step)
    course.to_the_end()
    tests = course.check()
    assert len(course.evaluated) == len(tests)


@settings(max_examples=300)
@given(**SETTINGS)
def test_a_restart_at_any_moment_neither_loses_nor_repeats_a_finished_workload(
    batches, passes, every, seed, workers, delay, steps
):
    course = Course(batches, passes, every, seed, workers, delay)
    for step in steps:
        if step == 0:
            course.restart()
        elif step % 2 or not course.out:
            course.take()
        else:
            course.finish(step)
    course.restart()
    course.to_the_end()
    course.check()


def test_an_epoch_that_is_over_before_the_one_before_it_is_not_repeated_after_a_restart():
    course = Course([(16, 0)], 3, 0, 1, 1)
    first = course.take()
    while (workload := course.take()) is not None and workload.epoch == 1:
        course.finish(1)
    assert workload.epoch == 2
    course.finish(1)
    while course.take() is not None:
        course.finish(1)
    assert course.out == [first]  # one slow worker; all others have finished epoch 2
    course.restart()
    course.to_the_end()
    course.check()


def test_a_seed_gives_the_same_order_and_another_seed_another_and_every_epoch_its_own():
    def order(seed):
        ledger = Ledger([Batches(0, 40, 0)], 2, 0, seed, 1)
        taken = []
        while (workload := ledger.next(WORKER, 0.0)) is not None:
            taken.append((workload.epoch, workload.batches))
            ledger.done(WORKER, workload.number, 0.0)
        return taken

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert [batches for epoch, batches in order(1) if epoch == 1] != [
        batches for epoch, batches in order(1) if epoch == 2
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_of_batches_depends_on_neither_workers_nor_delay(workers):
    def order(workers, delay):
        ledger = Ledger([Batches(0, 40, 0)], 1, 0, 5, workers, delay)
        taken = []
        while (workload := ledger.next(WORKER, 0.0)) is not None:
            taken += workload.batches
            ledger.done(WORKER, workload.number, 0.0)
        return taken

    assert order(workers, 0) == order(2, None) == order(1, 7)


def test_without_delay_one_batch_is_out_at_a_time_and_a_larger_delay_takes_effect_at_once():
    ledger = Ledger([Batches(0, 40, 0)], 1, 0, 0, 2, 0)
    first = ledger.next(WORKER, 0.0)
    assert len(first.batches) == 1
    assert ledger.next(WORKER, 0.0) is None
    ledger.delay = 4
    assert sum(len(ledger.next(WORKER, 0.0).batches) for _ in range(4)) == 4
    assert ledger.next(WORKER, 0.0) is None
    ledger.done(WORKER, first.number, 0.0)
    assert len(ledger.next(WORKER, 0.0).batches) == 1


def test_rounds_hand_out_every_test_batch_again_and_again():
    rounds = Rounds([Batches(0, 5, 3), Batches(1, 0, 2), Batches(2, 7, 0)])
    for number in (1, 2, 3):
        out = []
        while (workload := rounds.next(WORKER, 0.0)) is not None:
            assert not workload.train
            assert workload.epoch == number
            out.append(workload)
        assert {(w.part, b) for w in out for b in w.batches} == {(0, 5), (0, 6), (0, 7), (1, 0), (1, 1)}
        ends = [rounds.done(WORKER, workload.number, 0.0).ends for workload in out]
        assert ends == [False] * (len(out) - 1) + [True]
    assert Rounds([Batches(0, 5, 0)]).next(WORKER, 0.0) is None


def test_a_worker_gets_about_eight_workloads_an_epoch_of_at_most_sixty_four_batches():
    assert len(Ledger([Batches(0, 160, 0)], 1, 0, 0, 2).next(WORKER, 0.0).batches) == 10
    assert len(Ledger([Batches(0, 100_000, 0)], 1, 0, 0, 2).next(WORKER, 0.0).batches) == 64
    assert len(Ledger([Batches(0, 3, 0)], 1, 0, 0, 2).next(WORKER, 0.0).batches) == 1


def test_an_evaluation_that_is_over_is_repeated_after_a_restart_only_if_it_is_the_last():
    course = Course([(10, 3)], 3, 1, 0, 1)
    while course.ledger.epoch < 2:
        course.take()
        course.finish(0)
    course.restart()
    assert course.take().train
    course.to_the_end()
    assert [epoch for epoch, *_ in course.evaluated] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    course.restart()
    course.to_the_end()
    assert [epoch for epoch, *_ in course.evaluated[9:]] == [3, 3, 3]


def test_half_an_evaluation_is_done_again():
    course = Course([(8, 100)], 3, 1, 0, 1)
    while not course.evaluated:
        course.take()
        course.finish(0)
    course.restart()
    assert not course.take().train


def test_progress_is_json():
    ledger = Ledger([Batches(0, 10, 2)], 2, 1, 0, 2)
    ledger.done(WORKER, ledger.next(WORKER, 0.0).number, 0.0)
    assert json.loads(json.dumps(ledger.progress())) == ledger.progress()
