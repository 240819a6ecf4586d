"""The scheduler's decisions, message by message: no fabric, no clock, no file."""

import itertools

import msgspec
import numpy as np
import pytest

from mpips import messages as m
from mpips.dataserver.spec import DataSpec
from mpips.metrics import BINS, pack
from mpips.plan import Plan
from mpips.scheduler.effects import Complete, End, Log, Send
from mpips.scheduler.outstanding import FEWEST, GRACE, LATE
from mpips.scheduler.saving import LAST_RETRIES, LAST_SAVE_SECONDS, RETRY_SECONDS
from mpips.scheduler.scheduler import Scheduler
from mpips.scheduler.startup import Resume
from mpips.scheduler.tally import LONGEST_REPORT, SHORTEST_REPORT
from mpips.views.chains import chains_of
from mpips.views.view import Roles, assign
from tests.simulated import table

SCHEDULER, SERVERS, DATA, WORKERS, SPARE = 0, [1, 2], 3, [4, 5], 6
DATA_SPEC = DataSpec(format="libsvm", files=("x",))
READY = m.DataReady(part=0, train=6, test=2, train_rows=60, test_rows=20, skipped=0, features=77, groups=[])
SCORES = np.zeros((2, BINS), np.uint32)
SCORES[0, 100], SCORES[1, 200] = 5, 5


class Job:
    """A scheduler, and ranks that answer it as they should."""

    def __init__(self, resume=(), **plan):
        settings = {"data": DATA_SPEC, "saves": True, "save_every": 30.0, "passes": 2, "model": "w", **plan}
        self.plan = Plan(
            program=lambda worker: None,
            tables=lambda features: [table(rows=features)],
            roles=Roles(servers=2, data_servers=1, workers=2),
            **settings,
        )
        self.view = assign([0] * 7, self.plan.roles, replicas=self.plan.replicas)
        assert (self.view.servers, self.view.data_servers, self.view.workers, self.view.spares) == (
            SERVERS,
            [DATA],
            WORKERS,
            [SPARE],
        )
        self.scheduler = Scheduler(self.view, self.plan, list(resume), 1)
        self.now = 1.0

    def hear(self, source, message):
        self.scheduler.handle(source, message, self.now)
        return self.effects()

    def effects(self):
        effects, self.scheduler.effects = self.scheduler.effects, []
        return effects

    def tick(self, seconds):
        self.now += seconds
        self.scheduler.tick(self.now)
        return self.effects()

    def come_up(self):
        for rank in range(7):
            self.hear(rank, m.Hello("host", 100 + rank))
        if self.plan.data is not None:
            self.hear(DATA, READY)
        for server in SERVERS:
            begun = self.hear(server, m.TablesReady(None))
        return begun

    def work(self, until=lambda workload: False):
        """Have worker 4 do everything; what it was given."""
        done = []
        while True:
            answers = sent(self.hear(4, m.WorkRequest()))
            workload = answers.get(4)
            if workload is None or isinstance(workload, m.NoMoreWork) or until(workload):
                return done, workload
            done.append(workload)
            rows = len(workload.batches) * 10
            self.last = self.hear(
                4, m.WorkDone(workload.number, rows, rows * 0.5, b"" if workload.train else pack(SCORES))
            )

    def save_all(self, generation, error=None):
        """Every server answers; what follows from the last answer."""
        for server in SERVERS:
            effects = self.hear(server, m.Saved(generation, error if server == 2 else None))
        return effects

    def completed(self, error=None):
        self.scheduler.completed(error, self.now)
        return self.effects()


def sent(effects):
    """The messages of effects, by receiver."""
    return {effect.dest: effect.message for effect in effects if isinstance(effect, Send)}


def logged(effects, event):
    return [effect.event for effect in effects if isinstance(effect, Log) and effect.event["event"] == event]


def end(effects):
    ends = [effect for effect in effects if isinstance(effect, End)]
    if not ends:
        return None
    assert len(ends) == 1
    stops = sent(effects)
    assert stops == {rank: m.Stop(ends[0].exit, ends[0].reason) for rank in range(7)}  # everyone is told
    return tuple(ends[0])


def asked_to_save(effects, generation):
    return {
        dest
        for dest, message in sent(effects).items()
        if isinstance(message, m.Checkpoint) and message.generation == generation
    } == set(SERVERS)


# --- up ---


def test_tables_are_made_and_workers_begin_whatever_the_order_of_arrival(rng):
    arrivals = [(rank, m.Hello("host", rank)) for rank in range(7)] + [(DATA, READY)]
    for _ in range(50):
        job = Job()
        rng.shuffle(arrivals)
        effects = [job.hear(*arrivals[i]) for i in range(len(arrivals))]
        assert not any(sent(effect) for effect in effects[:-1])
        create = m.CreateTables([table(rows=77)], None)
        assert sent(effects[-1]) == dict.fromkeys(SERVERS, create)
        assert sent(job.hear(2, m.TablesReady(None))) == {}
        assert sent(job.hear(1, m.TablesReady(None))) == {
            worker: m.Begin([table(rows=77)], [], worker) for worker in WORKERS
        }


def test_a_job_without_data_waits_for_no_data():
    job = Job(data=None)
    for rank in range(6):
        assert sent(job.hear(rank, m.Hello("host", 1))) == {}
    assert set(sent(job.hear(6, m.Hello("host", 1)))) == set(SERVERS)


def test_data_without_a_training_row_end_the_job():
    job = Job()
    for rank in range(7):
        job.hear(rank, m.Hello("host", 1))
    effects = job.hear(DATA, m.DataReady(0, 0, 2, 0, 20, 0, 5, []))
    assert end(effects) == ("failed", "the data have no training row")


def test_a_rank_that_fails_while_the_job_comes_up_ends_it_without_a_checkpoint():
    job = Job()
    job.hear(0, m.Hello("host", 1))
    effects = job.hear(DATA, m.Failed("data/x.csv: line 17: …"))
    assert end(effects) == ("failed", "data/x.csv: line 17: …")
    assert not asked_to_save(effects, 1)
    assert job.hear(1, m.Hello("late", 1)) == []  # nothing follows the end


def test_servers_that_can_not_make_their_tables_end_the_job():
    job = Job()
    for rank in range(7):
        job.hear(rank, m.Hello("host", 1))
    job.hear(DATA, READY)
    assert end(job.hear(1, m.TablesReady("the arena is full"))) is None  # the other may still be at it
    assert end(job.hear(2, m.TablesReady(None))) == ("failed", "the arena is full")


# --- resume ---

PROGRESS = {"epochs": 1, "done": {}, "size": 1, "seed": 0, "batches": [[6, 2]], "examples": 60}


def test_a_resumed_job_falls_back_to_the_generation_before_and_says_so():
    job = Job(resume=[Resume("run/2.h5", 2, PROGRESS), Resume("run/1.h5", 1, {**PROGRESS, "epochs": 0})], passes=3)
    for rank in range(7):
        job.hear(rank, m.Hello("host", 1))
    assert sent(job.hear(DATA, READY))[1].restore == "run/2.h5"
    job.hear(1, m.TablesReady("run/2/server-1.h5: truncated"))
    again = job.hear(2, m.TablesReady(None))
    assert {message.restore for message in sent(again).values()} == {"run/1.h5"}
    assert set(sent(again)) == set(SERVERS)
    assert logged(again, "note")[0]["text"] == "run/2/server-1.h5: truncated; going back to run/1.h5"
    job.hear(1, m.TablesReady(None))
    begun = job.hear(2, m.TablesReady(None))
    assert set(sent(begun)) == set(WORKERS)
    assert logged(begun, "note")[0]["text"] == "resumed from run/1.h5"
    done, _ = job.work()
    assert sorted({workload.epoch for workload in done}) == [1, 2, 3]  # of the older generation's progress


def test_a_resumed_job_goes_on_after_the_epochs_that_are_done():
    job = Job(resume=[Resume("run/2.h5", 2, PROGRESS)], passes=3)
    job.come_up()
    done, _ = job.work()
    assert sorted({workload.epoch for workload in done if workload.train}) == [2, 3]


def test_a_resumed_job_without_any_readable_generation_ends():
    job = Job(resume=[Resume("run/2.h5", 2, PROGRESS), Resume("run/1.h5", 1, PROGRESS)])
    for rank in range(7):
        job.hear(rank, m.Hello("host", 1))
    job.hear(DATA, READY)
    for error in ("2 is damaged", "1 is damaged"):
        job.hear(1, m.TablesReady(error))
        effects = job.hear(2, m.TablesReady(error))
    assert end(effects) == ("failed", "1 is damaged")


# --- work ---


def test_the_job_ends_when_every_program_has_returned_with_a_last_checkpoint():
    job = Job()
    job.come_up()
    done, last = job.work()
    assert [len([w for w in done if w.epoch == epoch and w.train]) for epoch in (1, 2)] == [6, 6]
    assert [w.epoch for w in done if not w.train] == [2, 2]
    assert isinstance(last, m.NoMoreWork)
    assert sent(job.last) == dict.fromkeys(SERVERS, m.Measure(2))
    assert sent(job.hear(5, m.WorkRequest())) == {5: m.NoMoreWork()}
    for worker in WORKERS:
        assert end(job.hear(worker, m.Finished(f"result {worker}", 0.1, m.Traffic()))) is None
    job.hear(1, m.Measured(2, {"w": 30, "other": 1}, m.Traffic()))
    effects = job.hear(2, m.Measured(2, {"w": 12, "other": 1}, m.Traffic()))
    assert logged(effects, "evaluation")[0]["nonzeros"] == 42
    assert asked_to_save(effects, 1)
    complete = job.save_all(1)
    assert [type(effect) for effect in complete] == [Complete]
    assert complete[0].progress["epochs"] == 2
    assert end(job.completed()) == ("finished", "all work is done")
    assert job.scheduler.results == {4: "result 4", 5: "result 5"}
    assert job.scheduler.metrics == {"auc": 1.0, "logloss": 0.5, "nonzeros": 42}


def test_the_epoch_and_its_mean_loss_are_logged():
    job = Job(passes=1)
    job.come_up()
    job.work(until=lambda workload: not workload.train)
    epoch = logged(job.last, "epoch")
    assert epoch == [{"event": "epoch", "epoch": 1, "loss": 0.5, "examples": 60}]


def test_a_report_that_comes_twice_counts_once():
    job = Job()
    job.come_up()
    workload = sent(job.hear(4, m.WorkRequest()))[4]
    done = m.WorkDone(workload.number, 10, 5.0, b"")
    job.hear(4, done)
    assert job.hear(4, done) == []
    assert job.scheduler.tally.examples == 10


def test_a_worker_waits_while_an_evaluation_is_held_back_and_is_fed_when_it_is_over():
    job = Job(passes=2, evaluate_every=1)
    job.come_up()
    first = sent(job.hear(5, m.WorkRequest()))[5]  # worker 5 is slow
    _, nothing = job.work()
    assert nothing is None
    given = sent(job.hear(5, m.WorkDone(first.number, 10, 5.0, b"")))
    assert not given[4].train
    assert given[4].epoch == 1


def test_progress_is_reported_with_what_servers_and_workers_say():
    job = Job(delay=3)
    job.come_up()
    job.hear(1, m.Load(0.25, 10, 1000, m.Traffic(100, 30, {"zeros": 70})))
    job.hear(2, m.Load(0.5, 10, 500, m.Traffic(50, 20, {"zeros": 20, "kkt": 10})))
    job.hear(4, m.Load(0.75, 10, 500, m.Traffic(7, 5, {"kkt": 2})))
    workload = sent(job.hear(4, m.WorkRequest()))[4]
    job.hear(4, m.WorkDone(workload.number, 12, 6.0, b""))
    assert logged(job.tick(SHORTEST_REPORT / 2), "progress") == []
    report = logged(job.tick(SHORTEST_REPORT / 2), "progress")[0]
    assert report["examples_per_second"] == pytest.approx(12 / SHORTEST_REPORT)
    assert (report["delay"], report["idle"], report["sent"]) == (3, 0.25, {"workers": 5, "servers": 50})
    assert report["servers"] == {"1": 0.25, "2": 0.5}
    assert (report["bytes"], report["loss"], report["epoch"], report["epochs"]) == (1500, 0.5, 1, 2)
    assert report["share"] == pytest.approx(12 / 120)


def test_progress_is_reported_often_at_first_and_once_a_second_in_the_long_run():
    job = Job()
    job.come_up()
    times = []
    while job.now < 100.0:
        if logged(job.tick(0.01), "progress"):
            times.append(job.now)
    pauses = np.diff(times)
    assert pauses[0] == pytest.approx(SHORTEST_REPORT, abs=0.02)
    assert pauses[-1] == pytest.approx(LONGEST_REPORT, abs=0.02)
    assert len(times) < 160


# --- checkpoints ---


def test_a_checkpoint_is_written_every_so_often():
    job = Job(save_every=30.0)
    job.come_up()
    for generation in (1, 2, 3):
        assert not asked_to_save(job.tick(29.0), generation)
        assert asked_to_save(job.tick(1.5), generation)
        assert not sent(job.tick(100.0))  # one at a time
        job.save_all(generation)
        assert logged(job.completed(), "checkpoint")[0]["generation"] == generation


def test_a_job_that_saves_only_at_the_end_saves_only_then():
    job = Job(save_every=0.0)
    job.come_up()
    assert not sent(job.tick(10_000.0))
    job.scheduler.interrupt("enough", job.now)
    assert asked_to_save(job.effects(), 1)


@pytest.mark.parametrize("where", ["server", "master"])
def test_a_checkpoint_that_fails_is_said_and_tried_again_soon_as_a_new_generation(where):
    job = Job(save_every=30.0)
    job.come_up()
    job.tick(30.0)
    if where == "server":
        effects = job.save_all(1, error="no space left")
    else:
        job.save_all(1)
        effects = job.completed("no space left")
    assert logged(effects, "checkpoint failed") == [
        {"event": "checkpoint failed", "generation": 1, "error": "no space left"}
    ]
    assert end(effects) is None
    assert not sent(job.tick(RETRY_SECONDS - 1))
    assert asked_to_save(job.tick(1.5), 2)
    job.save_all(2)
    assert logged(job.completed(), "checkpoint")


def test_a_last_checkpoint_that_keeps_failing_ends_the_job_as_failed():
    job = Job()
    job.come_up()
    job.scheduler.interrupt("SIGTERM received", job.now)
    effects = job.effects()
    for generation in range(1, LAST_RETRIES + 1):
        assert asked_to_save(effects, generation)
        effects = job.save_all(generation, error="no space left")
        if generation < LAST_RETRIES:
            assert end(effects) is None
            effects = job.tick(1.5)
    assert end(effects) == ("failed", "SIGTERM received; the last checkpoint was not written: no space left")


def test_a_finished_job_whose_last_checkpoint_succeeds_at_the_second_try_is_finished():
    job = Job(data=None)
    job.come_up()
    for worker in WORKERS:
        job.hear(worker, m.Finished(None, 0.1, m.Traffic()))
    job.save_all(1, error="no space left")
    assert asked_to_save(job.tick(1.5), 2)
    job.save_all(2)
    assert end(job.completed()) == ("finished", "all work is done")


def test_a_server_that_never_answers_can_not_hold_the_end_up_for_ever():
    job = Job()
    job.come_up()
    job.scheduler.interrupt("enough", job.now)
    job.effects()
    job.hear(1, m.Saved(1, None))
    assert end(job.tick(LAST_SAVE_SECONDS - 1)) is None
    assert end(job.tick(2.0)) == ("failed", "enough; the last checkpoint was not written: no answer from server 2")


def test_an_interrupt_while_a_checkpoint_is_written_is_followed_by_one_that_has_the_last_pushes():
    job = Job(save_every=30.0)
    job.come_up()
    job.tick(30.0)
    job.scheduler.interrupt("SIGINT received", job.now)
    assert not sent(job.effects())
    job.save_all(1)
    assert asked_to_save(job.completed(), 2)
    job.save_all(2)
    assert end(job.completed()) == ("interrupted", "SIGINT received")


def test_an_interrupt_while_a_checkpoint_fails_needs_just_one_more():
    job = Job(save_every=30.0)
    job.come_up()
    job.tick(30.0)
    job.scheduler.interrupt("SIGINT received", job.now)
    job.effects()
    job.save_all(1, error="no space left")
    assert asked_to_save(job.tick(1.5), 2)
    job.save_all(2)
    assert end(job.completed()) == ("interrupted", "SIGINT received")


def test_a_job_is_interrupted_once():
    job = Job()
    job.come_up()
    job.scheduler.interrupt("SIGINT received", job.now)
    assert asked_to_save(job.effects(), 1)
    job.scheduler.interrupt("SIGTERM received", job.now)
    assert job.effects() == []
    job.save_all(1)
    assert end(job.completed()) == ("interrupted", "SIGINT received")


def test_an_interrupt_before_the_work_has_begun_ends_at_once():
    job = Job()
    job.scheduler.interrupt("SIGINT received", job.now)
    assert end(job.effects()) == ("interrupted", "SIGINT received")
    job.scheduler.interrupt("SIGINT received", job.now)
    job.scheduler.fail("too late", job.now)
    assert job.effects() == []  # what is over ends once


def test_no_workload_is_given_once_the_end_has_begun():
    job = Job()
    job.come_up()
    job.scheduler.interrupt("enough", job.now)
    job.effects()
    assert sent(job.hear(4, m.WorkRequest())) == {}


# --- what may die ---


def messages(effects, dest):
    """All messages of effects to a rank, views left out."""
    found = [effect.message for effect in effects if isinstance(effect, Send) and effect.dest == dest]
    return [message for message in found if not isinstance(message, m.NewView)]


def lose(job, rank):
    job.scheduler.lost(rank, job.now)
    return job.effects()


def head_of(job):
    """The server that has the only shard of the table, without copies."""
    return int(chains_of(job.scheduler.view, table(rows=77)).heads[0])


def test_what_a_dead_worker_had_is_handed_out_first_under_its_name_and_one_after_the_other():
    job = Job(passes=1)
    job.come_up()
    first, second = (sent(job.hear(4, m.WorkRequest()))[4] for _ in range(2))
    mine = sent(job.hear(5, m.WorkRequest()))[5]
    assert (first.identity, first.first, second.first, mine.identity) == (4, 1, 1 + len(first.batches), 5)
    effects = lose(job, 4)
    assert end(effects) is None
    assert messages(effects, SPARE) == [m.Begin([table(rows=77)], [], SPARE)]
    assert sent(job.hear(5, m.WorkRequest()))[5] == first
    assert sent(job.hear(SPARE, m.WorkRequest()))[SPARE].identity == SPARE  # the second waits for the first
    assert job.hear(4, m.WorkDone(first.number, 10, 5.0, b"")) == []  # the dead are not listened to
    job.hear(5, m.WorkDone(first.number, 10, 5.0, b""))
    assert sent(job.hear(5, m.WorkRequest()))[5] == second
    assert job.scheduler.tally.examples == 10


def test_a_worker_is_not_sent_home_while_work_may_come_back_from_another():
    job = Job(passes=1)
    job.come_up()
    last = None
    while (workload := sent(job.hear(4, m.WorkRequest())).get(4)) is not None:
        if last is not None:
            job.hear(4, m.WorkDone(last.number, 10, 5.0, b""))
        last = workload
    effects = lose(job, 4)  # with the last workload of the epoch
    assert messages(effects, SPARE) == [m.Begin([table(rows=77)], [], SPARE)]
    assert messages(job.hear(5, m.WorkRequest()), 5) == [last]
    evaluation = messages(job.hear(5, m.WorkDone(last.number, 10, 5.0, b"")), 5)
    assert evaluation == []
    assert not sent(job.hear(5, m.WorkRequest()))[5].train


def test_work_that_a_waiting_worker_could_do_is_given_to_it_when_its_worker_dies():
    job = Job(passes=1, delay=0)
    job.come_up()
    first = sent(job.hear(4, m.WorkRequest()))[4]
    assert job.hear(5, m.WorkRequest()) == []
    assert messages(lose(job, 4), 5) == [first]


def test_what_is_ignored_counts_as_done():
    job = Job(passes=1, delay=0, on_worker_loss="ignore")
    job.come_up()
    first = sent(job.hear(4, m.WorkRequest()))[4]
    job.hear(5, m.WorkRequest())
    given = messages(lose(job, 4), 5)
    assert given[0].batches != first.batches
    job.hear(5, m.WorkDone(given[0].number, 10, 5.0, b""))
    _, nothing = job.work(until=lambda workload: True)
    assert nothing is None  # worker 4 gets nothing any more


def test_a_late_workload_is_done_by_a_waiting_worker_too_and_the_slower_one_is_told():
    job = Job(passes=2, delay=0)
    job.come_up()
    for _ in range(FEWEST):
        workload = sent(job.hear(4, m.WorkRequest()))[4]
        job.now += 0.1
        job.hear(4, m.WorkDone(workload.number, 10, 5.0, b""))
    slow = sent(job.hear(4, m.WorkRequest()))[4]
    assert job.hear(5, m.WorkRequest()) == []
    assert not logged(job.tick(LATE * 0.1), "straggler")
    effects = job.tick(GRACE + 0.01)
    late = logged(effects, "straggler")[0]
    assert (late["rank"], late["by"], late["workload"]) == (4, 5, slow.number)
    assert messages(effects, 5) == [slow]
    assert not logged(job.tick(10.0), "straggler")
    assert messages(job.hear(5, m.WorkDone(slow.number, 10, 5.0, b"")), 4) == [m.Cancelled(slow.number)]
    examples = job.scheduler.tally.examples
    job.hear(4, m.WorkDone(slow.number, 10, 5.0, b""))
    assert job.scheduler.tally.examples == examples


def test_a_worker_that_dies_while_the_job_comes_up_is_replaced():
    job = Job()
    lose(job, 4)
    begun = job.come_up()
    assert messages(begun, SPARE) == [m.Begin([table(rows=77)], [], SPARE)]
    assert messages(begun, 4) == []


def test_a_program_is_run_again_by_a_spare_under_the_name_of_the_one_that_died():
    job = Job(data=None)
    job.come_up()
    job.hear(4, m.Sum(7, 1, [1.0]))
    job.hear(5, m.Sum(8, 1, [2.0]))
    effects = lose(job, 4)
    assert messages(effects, SPARE) == [m.Begin([table(rows=0)], [], 4)]
    assert messages(job.hear(SPARE, m.Sum(1, 1, [1.0])), SPARE) == [m.SumReply(1, [3.0])]
    for worker in (5, SPARE):
        effects = job.hear(worker, m.Finished(f"of {worker}", 0.1, m.Traffic()))
    assert asked_to_save(effects, 1)
    assert job.scheduler.results == {4: f"of {SPARE}", 5: "of 5"}


def test_a_program_that_nobody_can_run_again_ends_the_job_with_a_checkpoint():
    job = Job(data=None)
    job.come_up()
    lose(job, SPARE)
    assert asked_to_save(lose(job, 4), 1)
    job.save_all(1)
    assert end(job.completed()) == (
        "failed",
        "rank 4 (worker on host) died: no spare is left to run its program again",
    )


def test_servers_count_again_when_one_of_them_is_lost_and_what_they_said_before_is_forgotten():
    job = Job(passes=1, replicas=1)
    job.come_up()
    job.work()
    job.hear(1, m.Measured(1, {"w": 99}, m.Traffic()))
    effects = lose(job, 2)
    assert messages(effects, 1)[-1] == messages(effects, SPARE)[-1] == m.Measure(1)
    assert not logged(job.hear(1, m.Measured(1, {"w": 30}, m.Traffic())), "evaluation")
    effects = job.hear(SPARE, m.Measured(1, {"w": 12}, m.Traffic()))
    assert logged(effects, "evaluation")[0]["nonzeros"] == 42


def settle(job):
    """All copies are where the view has them made."""
    number, servers = job.scheduler.view.number, job.scheduler.view.servers
    effects = [effect for server in servers for effect in job.hear(server, m.CopiesWhole(number))]
    for server in [dest for dest, message in sent(effects).items() if isinstance(message, m.Drain)]:
        effects = job.hear(server, m.Drained(number, 0))
    assert job.scheduler.view.ring == job.scheduler.view.target
    return effects


def test_a_checkpoint_is_given_up_when_shards_move_while_it_is_written():
    job = Job(save_every=30.0, replicas=1)
    job.come_up()
    lose(job, 2)
    assert m.Checkpoint(1) in messages(job.tick(31.0), SPARE)
    job.hear(1, m.Saved(1, None))
    effects = settle(job)
    assert logged(effects, "checkpoint failed")[0]["generation"] == 1
    assert job.hear(SPARE, m.Saved(1, None)) == []
    assert m.Checkpoint(2) in messages(job.tick(RETRY_SECONDS + 1), SPARE)


def test_a_checkpoint_that_every_server_has_written_is_completed_whatever_moves_then():
    job = Job(save_every=30.0, replicas=1)
    job.come_up()
    lose(job, 2)
    job.tick(31.0)
    job.hear(1, m.Saved(1, None))
    job.hear(SPARE, m.Saved(1, None))
    assert not logged(settle(job), "checkpoint failed")
    assert logged(job.completed(), "checkpoint")[0]["generation"] == 1


def test_a_last_checkpoint_that_is_given_up_again_and_again_because_shards_move_has_not_failed():
    job = Job(replicas=1)
    job.come_up()
    job.scheduler.interrupt("enough", job.now)
    moves = [lambda: lose(job, 2), lambda: settle(job), lambda: lose(job, 1), lambda: settle(job)]
    assert len(moves) > LAST_RETRIES
    effects = job.effects()
    for generation, move in enumerate(moves, 1):
        assert m.Checkpoint(generation) in messages(effects, SPARE) + messages(effects, 1)
        effects = move()
        assert logged(effects, "checkpoint failed")[0]["generation"] == generation
        effects = job.tick(2.0)
    job.hear(SPARE, m.Saved(len(moves) + 1, None))
    assert end(job.completed()) == ("interrupted", "enough")


def test_servers_count_again_when_shards_move_meanwhile():
    job = Job(passes=1, replicas=1)
    job.come_up()
    lose(job, 2)
    job.work()
    job.hear(1, m.Measured(1, {"w": 99}, m.Traffic()))
    assert m.Measure(1) in messages(settle(job), 1)
    job.hear(SPARE, m.Measured(1, {"w": 99}, m.Traffic()))  # what it was asked before
    job.hear(1, m.Measured(1, {"w": 30}, m.Traffic()))
    effects = job.hear(SPARE, m.Measured(1, {"w": 12}, m.Traffic()))
    assert logged(effects, "evaluation")[0]["nonzeros"] == 42


def test_the_only_copy_of_a_shard_takes_the_job_with_it_at_once():
    job = Job()
    job.come_up()
    head = head_of(job)
    exit_, reason = end(lose(job, head))
    assert exit_ == "failed"
    assert f"rank {head} (server on host) died" in reason


def test_a_scheduler_that_had_the_only_copy_of_a_shard_leaves_no_checkpoint_to_wait_for():
    job = Job(replicas=0)
    head = head_of(job)
    view = msgspec.structs.replace(job.view, scheduler=head, standbys=[SPARE])
    job.scheduler = Scheduler(view, job.plan, [], 1)
    job.come_up()
    effects = lose(job, head)
    exit_, reason = end(effects)
    assert exit_ == "failed"
    assert f"rank {head} (scheduler on host) died" in reason
    assert not [message for message in sent(effects).values() if isinstance(message, m.Checkpoint)]


def test_a_spare_that_dies_is_noted_and_disturbs_nobody():
    job = Job(data=None)
    job.come_up()
    job.scheduler.lost(SPARE, job.now)
    effects = job.effects()
    assert logged(effects, "lost") == [{"event": "lost", "rank": SPARE, "role": "spare"}]
    assert end(effects) is None
    assert {type(message) for message in sent(effects).values()} == {m.NewView}


def test_a_spare_that_dies_while_the_job_comes_up_does_not_keep_it_waiting():
    job = Job(data=None)
    for rank in range(6):
        job.hear(rank, m.Hello("host", 1))
    job.scheduler.lost(SPARE, job.now)  # it never said hello
    asked = {dest for dest, message in sent(job.effects()).items() if isinstance(message, m.CreateTables)}
    assert asked == set(SERVERS)


def test_a_server_that_dies_with_the_only_copy_while_the_last_checkpoint_is_written_ends_the_job_as_failed():
    job = Job()
    job.come_up()
    job.scheduler.interrupt("enough", job.now)
    assert asked_to_save(job.effects(), 1)
    assert end(lose(job, head_of(job)))[0] == "failed"
    assert job.hear(1, m.Saved(1, None)) == []


def test_a_worker_that_dies_while_the_last_checkpoint_is_written_does_not_spoil_it():
    job = Job(data=None)
    job.come_up()
    for worker in WORKERS:
        job.hear(worker, m.Finished(None, 0.1, m.Traffic()))
    job.scheduler.lost(4, job.now)
    assert end(job.effects()) is None
    job.save_all(1)
    assert end(job.completed()) == ("finished", "all work is done")


def test_the_first_reason_is_the_one_that_is_given():
    job = Job()
    job.come_up()
    job.hear(4, m.Failed("worker 4, epoch 1, batch 3: NaN"))
    job.hear(5, m.Failed("rank 5 waited for …"))
    job.save_all(1)
    assert end(job.completed()) == ("failed", "worker 4, epoch 1, batch 3: NaN")


def test_a_job_always_ends_when_asked_whatever_has_happened_before(rng):
    """Random messages in any order: nothing is raised, and there is one end and nothing after it."""
    for _ in range(100):
        job = Job(resume=[Resume("run/1.h5", 1, PROGRESS)] if rng.random() < 0.3 else [])
        for rank in range(7):
            job.hear(rank, m.Hello("host", 1))
        job.hear(DATA, READY)
        given = {}
        ended = None
        for _ in itertools.repeat(0, int(rng.integers(1, 80))):
            kind = int(rng.integers(0, 9))
            worker, server = int(rng.choice(WORKERS)), int(rng.choice(SERVERS))
            if kind == 0:
                effects = job.hear(server, m.TablesReady("broken" if rng.random() < 0.05 else None))
            elif kind == 1:
                effects = job.hear(worker, m.WorkRequest())
            elif kind == 2 and given:
                number, workload = given.popitem()
                effects = job.hear(worker, m.WorkDone(number, 10, 5.0, b"" if workload.train else pack(SCORES)))
            elif kind == 3:
                effects = job.tick(float(rng.choice([0.1, 31.0])))
            elif kind == 4:
                effects = job.hear(server, m.Saved(int(rng.integers(1, 4)), "full" if rng.random() < 0.3 else None))
            elif kind == 5:
                effects = job.hear(server, m.Measured(int(rng.integers(1, 3)), {"w": 1}, m.Traffic()))
            elif kind == 6 and rng.random() < 0.1:
                effects = job.hear(worker, m.Failed("something"))
            elif kind == 7 and rng.random() < 0.1:
                job.scheduler.lost(int(rng.integers(1, 7)), job.now)
                effects = job.effects()
            else:
                effects = job.hear(worker, m.Finished(None, 0.1, m.Traffic())) if rng.random() < 0.1 else []
            given |= {
                e.message.number: e.message
                for e in effects
                if isinstance(e, Send) and isinstance(e.message, m.Workload)
            }
            while any(isinstance(effect, Complete) for effect in effects):
                effects = [e for e in effects if not isinstance(e, Complete)] + job.completed(
                    "full" if rng.random() < 0.3 else None
                )
            if ended is not None:
                assert effects == []
            ended = end(effects) or ended
        job.scheduler.interrupt("enough", job.now)
        effects = job.effects()
        ended = end(effects) or ended
        for _ in range(10):
            if ended is None:
                ended = end(job.tick(LAST_SAVE_SECONDS + 1))
        assert ended is not None
