"""Jobs whose scheduler dies, at any moment: they go on under a standby, and end as if nothing had happened."""

import json

import numpy as np
import pytest

from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.messages import FromScheduler
from mpips.scheduler.succession import standbys
from mpips.views.view import Roles
from tests.simulated import PLACES, SLOW, SimulatedJob, count, libsvm, program_plan, table

ROWS, PASSES = 800, 2
TRAINED = ROWS * 4 // 5
LIMIT = 30.0  # simulated seconds: far beyond what a job takes
TRIALS = 15  # of the moments at which a scheduler may die
ROLES = {
    "a spare": Roles(servers=2, data_servers=1, workers=2, spares=1),
    "a data server": Roles(servers=2, data_servers=2, workers=2),
    "a server": Roles(servers=2, data_servers=0, workers=2),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", ROWS, 60, np.random.default_rng(7))
    return DataSpec(format="libsvm", files=("x.libsvm",), test=TestSplit(every=5), batch=40), folder


def ranks_of(roles):
    return 1 + roles.servers + roles.data_servers + roles.workers + (roles.spares or 0)


def counting(data, roles, run, seed):
    """A job that counts its rows, and writes checkpoints."""
    spec, base = data
    plan = program_plan(
        count,
        table("w", rows=100),
        data=spec, base=base, passes=PASSES, seed=3, model="w", roles=roles, run=run, saves=True, save_every=0.1,
    )  # fmt: skip
    return SimulatedJob(plan, PLACES["two nodes"](ranks_of(roles)), seed, latency=SLOW)


def events(run, kind=None):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event for event in found if kind in (None, event["event"])]


def check(job, run, dead):
    """Everyone who lives has seen the job finish; every row was counted once an epoch, every event written once."""
    assert [rank for rank, outcome in enumerate(job.outcomes) if outcome is None] == sorted(dead)
    assert {outcome.exit for outcome in job.outcomes if outcome is not None} == {"finished"}
    results = [outcome.results for outcome in job.outcomes if outcome is not None and outcome.results]
    assert results == [[float(PASSES * TRAINED)] * 2]  # as the scheduler's rank alone has them
    result = json.loads((run / "result.json").read_text())
    assert (result["exit"], result["examples"]) == ("finished", PASSES * TRAINED)
    assert [event["epoch"] for event in events(run, "epoch")] == list(range(1, PASSES + 1))
    assert [event["rows"] for event in events(run, "evaluation")] == [ROWS - TRAINED]
    assert len(events(run, "end")) == 1
    numbers = [event["number"] for event in events(run) if "number" in event]
    assert numbers == list(range(1, len(numbers) + 1))
    listed = {entry["rank"] for entry in json.loads((run / "ranks.json").read_text())}
    assert listed == set(range(len(job.outcomes))) - set(dead)


@pytest.mark.parametrize("heir", ["a spare", "a data server"])
def test_the_scheduler_may_die_at_any_message(data, tmp_path, seed, heir):
    whole = counting(data, ROLES[heir], tmp_path / "whole", seed).run(LIMIT)
    check(whole, tmp_path / "whole", [])
    sent = whole.simulation.ranks[0].sent
    for last in range(1, sent, max(1, sent // TRIALS)):
        print(f"rank 0 dies at message {last} of {sent}")  # noqa: T201 - shown with a failure
        run = tmp_path / str(last)
        job = counting(data, ROLES[heir], run, seed)
        job.simulation.kill_at_message(0, last)
        job.run(LIMIT)
        check(job, run, [0])


def test_a_program_of_the_workers_goes_on_without_the_scheduler_that_began_it(seed):
    """A server follows the scheduler, since there is nobody else; the job leaves no files."""

    def program(worker):
        total = 0.0
        for i in range(20):
            worker.table("w").push([i], [1.0])
            total += worker.sum(float(worker.index)).wait()[0]
        worker.settle()
        worker.sum(0.0).wait()
        return [total, float(worker.table("w").pull(slice(None)).wait().sum())]

    rng = np.random.default_rng(seed)
    for _ in range(TRIALS):
        plan = program_plan(program, table("w", rows=20), roles=ROLES["a server"])
        job = SimulatedJob(plan, PLACES["nodes of their own"](5), int(rng.integers(1 << 30)), latency=SLOW)
        job.simulation.kill_at_message(0, int(rng.integers(1, 60)))
        job.run(LIMIT)
        assert job.outcomes[0] is None
        assert {outcome.exit for outcome in job.outcomes[1:]} == {"finished"}
        assert [outcome.results for outcome in job.outcomes[1:] if outcome.results] == [[[20.0, 40.0]] * 2]


def test_one_successor_may_follow_another(data, tmp_path, seed):
    """The second may die as soon as a third has its state: at least the time that it takes to see a death later."""
    rng = np.random.default_rng(seed)
    roles = Roles(servers=2, data_servers=1, workers=2, spares=2)
    for trial in range(TRIALS):
        run = tmp_path / str(trial)
        job = counting(data, roles, run, seed + trial)
        first = float(rng.uniform(0.0, 0.12))
        second = first + float(rng.uniform(0.1, 0.15))
        heir = standbys(job.view)[0]
        print(f"seed {seed + trial}: rank 0 dies at {first}, rank {heir} at {second}")  # noqa: T201
        job.simulation.kill(0, first)
        job.simulation.kill(heir, second)
        job.run(LIMIT)
        check(job, run, [0, heir])


def test_a_scheduler_and_its_successor_that_die_together_leave_nobody_hanging(data, tmp_path, seed):
    rng = np.random.default_rng(seed)
    for trial in range(TRIALS):
        run = tmp_path / str(trial)
        job = counting(data, ROLES["a spare"], run, seed + trial)
        at = float(rng.uniform(0.0, 0.2))
        job.simulation.kill(0, at)
        job.simulation.kill(standbys(job.view)[0], at + float(rng.uniform(0.0, 0.02)))
        job.run(LIMIT)
        assert job.simulation.time < 5.0
        exits = {outcome.exit for outcome in job.outcomes if outcome is not None}
        assert len(exits) == 1
        result = json.loads((run / "result.json").read_text())
        assert {result["exit"]} == exits
        if exits == {"failed"}:
            assert "(scheduler) died" in result["reason"]


def test_a_job_whose_scheduler_runs_a_program_ends_with_it(tmp_path):
    plan = program_plan(
        lambda worker: worker.idle(lambda: False),
        table(),
        conduct=lambda conductor: None,
        roles=Roles(servers=1, data_servers=0, workers=1, spares=1),
        run=tmp_path,
    )
    job = SimulatedJob(plan, [0] * 4, 1, latency=SLOW)
    job.simulation.kill(0, 0.3)
    job.run(LIMIT)
    assert {outcome.exit for outcome in job.outcomes[1:]} == {"failed"}
    assert json.loads((tmp_path / "result.json").read_text())["reason"] == "rank 0 (scheduler) died"


def test_any_other_rank_may_die_with_the_scheduler(data, tmp_path, seed):
    """A spare that mirrors the scheduler may have to take a worker's place just then."""
    rng = np.random.default_rng(seed)
    for trial in range(2 * TRIALS):
        run = tmp_path / str(trial)
        job = counting(data, ROLES["a spare"], run, seed + trial)
        other = int(rng.choice([*job.view.workers, *job.view.data_servers]))
        at = float(rng.uniform(0.05, 0.2))
        then = at + float(rng.uniform(-0.05, 0.05))
        print(f"seed {seed + trial}: rank 0 dies at {at}, rank {other} at {then}")  # noqa: T201
        job.simulation.kill(0, at)
        job.simulation.kill(other, then)
        job.run(LIMIT)
        assert {outcome.exit for outcome in job.outcomes if outcome is not None} == {"finished"}
        (results,) = (outcome.results for outcome in job.outcomes if outcome is not None and outcome.results)
        assert set(results) == {float(PASSES * TRAINED)}  # of one worker, if nobody could take the other's place


@pytest.mark.parametrize("role", ["spare", "worker"])
def test_a_rank_that_was_taken_for_dead_leaves_and_disturbs_nobody(data, tmp_path, seed, role):
    roles = Roles(servers=2, data_servers=1, workers=2, spares=1)
    job = counting(data, roles, tmp_path, seed)
    slow = job.view.group(f"{role}s")[0]
    job.simulation.pause(slow, 0.05, 0.2)
    job.simulation.at(0.1, lambda: job.ranks[0]._lost(slow))
    job.run(LIMIT)
    assert job.outcomes[slow].exit == "lost"
    assert {outcome.exit for rank, outcome in enumerate(job.outcomes) if rank != slow} == {"finished"}
    assert set(job.outcome.results) == {float(PASSES * TRAINED)}


def test_nothing_is_handed_out_before_the_standby_knows_of_it(data, tmp_path, seed):
    job = counting(data, ROLES["a spare"], tmp_path, seed)
    scheduler = job.simulation.ranks[0]
    said, send = [], scheduler.send

    def note(dest, message):
        if isinstance(message, FromScheduler):
            said.append(scheduler.now())
        send(dest, message)

    scheduler.send = note
    job.simulation.pause(standbys(job.view)[0], 0.1, 0.3)
    check(job.run(LIMIT), tmp_path, [])
    assert any(time < 0.1 for time in said)
    assert not [time for time in said if 0.1 + 2 * SLOW[1] < time < 0.4]
    assert any(time > 0.4 for time in said)


def test_the_scheduler_may_die_at_any_message_while_its_standby_gets_another_role(data, tmp_path, seed):
    """A spare takes a dead worker's place; the next standby may not have the state yet, nor the others the view."""
    roles = ROLES["a spare"]

    def begin(name):
        job = counting(data, roles, tmp_path / name, seed)
        job.simulation.kill(job.view.workers[0], 0.1)
        return job

    whole, sent = begin("whole"), []
    scheduler = whole.simulation.ranks[0]
    whole.simulation.at(0.1, lambda: sent.append(scheduler.sent))
    whole.simulation.at(0.2, lambda: sent.append(scheduler.sent))
    whole.run(LIMIT)
    for last in range(sent[0] + seed % 2, sent[1], 2):  # another run has the others
        print(f"rank 0 dies at message {last}")  # noqa: T201
        job = begin(str(last))
        job.simulation.kill_at_message(0, last)
        job.run(LIMIT)
        assert {outcome.exit for outcome in job.outcomes if outcome is not None} == {"finished"}
        (results,) = (outcome.results for outcome in job.outcomes if outcome is not None and outcome.results)
        assert set(results) == {float(PASSES * TRAINED)}
