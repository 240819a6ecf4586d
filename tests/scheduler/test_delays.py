"""The delay in force: what windows are made of, and what the scheduler and its workers make of the choice."""

import json
import math

import numpy as np
import pytest

from mpips import messages as m
from mpips.algorithms.linear import LogisticRegression
from mpips.dataserver.spec import DataSpec
from mpips.metrics import pack
from mpips.plan import Plan
from mpips.scheduler.delays import BATCHES, SHORTEST_WINDOW, Delays
from mpips.views.view import Roles
from tests.scheduler.test_scheduler import DATA, DATA_SPEC, SCORES, SERVERS, WORKERS, Job, logged, sent
from tests.simulated import SMALL, SimulatedJob, libsvm, table
from tests.simulated import run as simulated

SECONDS = 0.01  # of a batch
ROWS = 10


class Course:
    """Batches that are done one after the other, of a job of two workers."""

    def __init__(self, delay="auto", **settings):
        plan = Plan(program=lambda worker: None, tables=lambda _: [], delay=delay, **{"data": DATA_SPEC, **settings})
        self.delays = Delays(plan, 2)
        self.now = 100.0
        self.delays.begin(self.now)

    def do(self, batches, waited=0.0, loss=0.5, seconds=SECONDS):
        """Share of the workers' time waited, mean loss; the delay after the last, which the ledger is told."""
        random = np.random.default_rng(1)
        for _ in range(batches):
            self.now += seconds
            noisy = loss + 0.01 * random.normal()
            told = self.delays.done(1, ROWS, ROWS * noisy, 2 * waited * seconds, self.now)
            assert told == self.delays.delay
        return told


@pytest.mark.parametrize("delay", [0, 3, None])
def test_a_delay_that_the_job_file_gives_never_changes(delay):
    course = Course(delay)
    assert course.do(100, waited=0.9) == delay
    assert not course.delays.reported(0.5, 0.9)
    assert course.delays.delay == delay


def test_batches_are_handed_out_to_every_worker_from_the_start_and_a_worker_s_own_program_begins_in_sequence():
    assert Course().delays.delay == 3
    assert Course(keeps_rows=True).delays.delay == 0
    assert Course(data=None).delays.delay == 0


def test_the_delay_is_raised_after_a_window_in_which_workers_waited():
    course = Course()
    assert course.do(4, waited=0.5) == 3  # until all are at work
    assert course.do(BATCHES - 1, waited=0.5) == 3
    assert course.do(1, waited=0.5) == 7


def test_the_delay_is_raised_when_computing_takes_next_to_no_time():
    assert Course().do(4 + BATCHES, waited=1.2) == 7  # some of it before the window began


def test_the_delay_stays_while_workers_have_work():
    assert Course().do(500, waited=0.01) == 3


def test_only_the_wait_for_work_counts_not_how_long_the_work_takes():
    """What is slow for another reason, such as a busy machine, gets no faster by a delay."""
    course = Course()
    course.do(4 + BATCHES, waited=0.5)
    assert course.do(4 + BATCHES, waited=0.4, seconds=5 * SECONDS) == 15
    assert course.do(8 + 2 * BATCHES, waited=0.4, seconds=SECONDS / 5) == 7


def test_what_was_handed_out_under_the_delay_before_does_not_count_for_the_new_one():
    course = Course()
    course.do(4 + BATCHES, waited=0.5)
    course.do(4, waited=1.0, loss=5.0)
    assert course.do(BATCHES, waited=0.0) == 7


def test_waits_for_an_evaluation_do_not_count():
    course = Course()
    for _ in range(20):
        course.do(10, waited=0.0)
        course.do(3, waited=1.0)
        course.delays.begin(course.now)
        course.do(4, waited=1.0)  # the first workloads after it
    assert course.delays.delay == 3


def test_a_window_lasts_until_there_is_something_to_measure():
    course = Course()
    course.do(4)
    assert course.do(BATCHES, waited=0.5, seconds=SHORTEST_WINDOW / 100) == 3
    assert course.do(BATCHES, waited=0.5, seconds=0.0) == 3
    assert course.do(1, waited=0.5) == 7


def test_a_loss_that_is_no_number_takes_the_delay_back():
    course = Course()
    course.do(4 + BATCHES, waited=0.5)
    assert course.do(4 + BATCHES, waited=0.1, loss=math.nan) == 3


def test_reports_of_the_objective_are_windows_of_their_own():
    course = Course(keeps_rows=True)
    assert not course.delays.reported(0.7, 0.5)
    assert not course.delays.reported(0.6, 0.5)
    assert course.delays.reported(0.55, 0.5)
    assert course.delays.delay == 1
    assert course.delays.reported(0.549, 0.4)
    assert course.delays.delay == 0


# --- in a job -------------------------------------------------------------------------------------------------------


def test_the_scheduler_tells_the_workers_of_a_program_when_the_delay_changes():
    job = Job(delay="auto", keeps_rows=True)
    job.come_up()
    job.work()
    told = []
    for number, objective in enumerate((0.7, 0.6, 0.55, 0.549)):
        told.append(sent(job.hear(4, m.Report({"pass": number + 1.0, "objective": objective}, idle=0.6))))
    assert told == [{}, {}, dict.fromkeys(WORKERS, m.SetDelay(1)), dict.fromkeys(WORKERS, m.SetDelay(0))]


def test_the_scheduler_tells_nobody_of_a_delay_that_the_job_file_gives():
    job = Job(delay=2, keeps_rows=True)
    job.come_up()
    job.work()
    for objective in (0.7, 0.6, 0.55, 0.549):
        assert sent(job.hear(4, m.Report({"objective": objective}, idle=0.6))) == {}


def delay_after(epochs, waited):
    """The delay after epochs with an evaluation each; a worker waits before a batch, and always after an evaluation."""
    job = Job(delay="auto", passes=epochs, evaluate_every=1)
    for rank in range(7):
        job.hear(rank, m.Hello("host", 1))
    job.hear(DATA, m.DataReady(0, 30, 1, 300, 10, 0, 77, []))
    for server in SERVERS:
        job.hear(server, m.TablesReady(None))
    evaluated = True
    while isinstance(workload := sent(job.hear(4, m.WorkRequest())).get(4), m.Workload):
        job.now += SECONDS
        rows = ROWS * len(workload.batches)
        wait = 2 * SECONDS if evaluated else waited * 2 * SECONDS
        loss = (0.5 + 0.01 * (workload.number % 3)) * rows
        job.hear(4, m.WorkDone(workload.number, rows, loss, b"" if workload.train else pack(SCORES), wait))
        evaluated = not workload.train
    return logged(job.tick(1.0), "progress")[0]["delay"]


def test_waits_for_an_evaluation_are_not_taken_for_waits_for_the_delay():
    assert delay_after(10, waited=0.0) == 3
    assert delay_after(1, waited=0.5) == 7


def test_a_program_that_does_not_wait_keeps_its_delay():
    job = Job(delay="auto", keeps_rows=True)
    job.come_up()
    job.work()
    for objective in (0.7, 0.6, 0.55, 0.549):
        assert sent(job.hear(4, m.Report({"objective": objective}, idle=0.01))) == {}


def test_a_worker_tells_with_its_objective_how_much_it_has_waited_since_the_last():
    told = []

    def program(worker):
        tell = worker._line.tell

        def note(message):
            if isinstance(message, m.Report):
                told.append(message.idle)
            tell(message)

        worker._line.tell = note
        busy, worked = worker._fabric.busy, 0.0
        worker._fabric.busy = lambda: busy() + worked
        for work in (0.0, 0.3, 0.0):  # computing takes no simulated time
            until = worker._fabric.now() + 0.3
            worker.idle(lambda until=until: worker._fabric.now() >= until)
            worked += work
            worker.report(objective=1.0)

    simulated(program, table(), nodes=[0, 0, 0], workers=1)
    assert [share > 0.5 for share in told] == [True, False, True]


SLOW, FAST = 3e-3, 1e-3


@pytest.fixture
def run(tmp_path):
    """Run a simulated job of two workers, one of them slow, over 400 batches."""
    libsvm(tmp_path / "x.libsvm", 800, 50, np.random.default_rng(7))

    def run(delay, program):
        plan = Plan(
            program=program,
            tables=lambda features: [table(rows=features, rule={"name": "ftrl", "alpha": 0.2})],
            data=DataSpec(format="libsvm", files=("x.libsvm",), batch=4),
            base=tmp_path,
            roles=Roles(servers=1, data_servers=1, workers=2),
            passes=2,
            delay=delay,
            run=tmp_path / f"run-{delay}",
            saves=True,
            memory=SMALL,
            threads=1,
        )
        job = SimulatedJob(plan, [0] * 5, 1).run()
        assert job.outcome.exit == "finished", job.outcome.reason
        return [json.loads(line) for line in (tmp_path / f"run-{delay}" / "metrics.jsonl").read_text().splitlines()]

    return run


class Busy(LogisticRegression):
    """Takes its time."""

    def __init__(self, worker):
        super().__init__(worker.table("w"))
        self._worker = worker

    def train(self, batch):
        now = self._worker._fabric.now
        until = now() + (FAST if self._worker.index else SLOW)
        self._worker.idle(lambda: now() >= until)
        return super().train(batch)


def test_workers_tell_how_long_they_had_nothing_to_do(run):
    waited = {}

    def program(worker):
        tell, begin = worker._line.tell, worker._fabric.now()
        told = []

        def note(message):
            if isinstance(message, m.WorkDone):
                told.append(message.waited)
            tell(message)

        worker._line.tell = note
        worker.train(Busy(worker))
        waited[delay, worker.index] = sum(told) / (worker._fabric.now() - begin)

    for delay in (0, 1, 16):
        run(delay, program)
    assert waited[0, 0] + waited[0, 1] > 0.9  # one of the two waits at any time
    assert waited[1, 1] > 0.5  # the other holds the only batch that may be unfinished
    assert max(waited[16, 0], waited[16, 1]) < 0.05


def test_a_slow_worker_makes_the_system_choose_a_delay_that_lets_the_other_work_on(run):
    def program(worker):
        worker.train(Busy(worker))

    events = run("auto", program)
    delays = [event["delay"] for event in events if event["event"] == "progress"]
    assert delays[-1] >= 7
