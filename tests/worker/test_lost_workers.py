"""Workers that die or are slow in whole simulated jobs: every example counts as often as there are epochs."""

import json

import numpy as np
import pytest

from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.plan import Plan
from mpips.views.view import Roles
from tests.simulated import PLACES, SMALL, SimulatedJob, libsvm, program_plan, rest, table

ROWS, FEATURES, PASSES = 600, 80, 3
TRAIN = ROWS * 4 // 5
everywhere = pytest.mark.parametrize("place", PLACES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", ROWS, FEATURES, np.random.default_rng(7))
    return DataSpec(format="libsvm", files=("x.libsvm",), batch=4, test=TestSplit(every=5)), folder


class Count:
    """Counts rows in a table, and in another how often each feature occurs; takes some time over each batch."""

    def __init__(self, worker, seconds):
        self.worker, self.seconds = worker, seconds

    def train(self, batch):
        rest(self.worker._fabric, self.seconds)
        self.worker.table("rows").push([0], [float(len(batch))])
        self.worker.table("w").push(batch.keys, np.bincount(batch.indices, minlength=batch.keys.size).astype(float))
        return float(len(batch))

    def evaluate(self, batch, histogram):
        rest(self.worker._fabric, self.seconds)
        histogram[:, 0] += 1
        return 0.0


def count(worker):
    worker.train(Count(worker, 2e-3))


def job_of(data, folder, place, seed, program=count, **settings):
    spec, base = data
    plan = Plan(
        program=program,
        tables=lambda features: [table(rows=features), table("rows", rows=1)],
        data=spec,
        base=base,
        run=folder,
        memory=SMALL,
        threads=1,
        **{"roles": Roles(servers=2, data_servers=1, workers=3), "passes": PASSES, **settings},
    )
    return SimulatedJob(plan, PLACES[place](9), seed)


def held(job):
    """The values of every table, as the servers have them."""
    found = {}
    for server in job.servers.values():
        for shards in server.tables:
            values = found.setdefault(shards.spec.name, np.zeros(shards.spec.rows))
            for shard in shards.held:
                lo, hi = shards.spec.shard_range(shard)
                values[lo:hi] = shards.dense_rows(shard)[0][:, 0]
    return found


def counted(job):
    """Rows, and how often each feature occurs in them."""
    found = held(job)
    return float(found["rows"][0]), found["w"]


def events(job, name):
    lines = (job.plan.run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """What an epoch adds to every feature."""
    job = job_of(data, tmp_path_factory.mktemp("run"), "one node", 1, passes=1).run()
    rows, occurrences = counted(job)
    assert rows == TRAIN
    return occurrences


@everywhere
@pytest.mark.parametrize("policy", ["replace", "redistribute"])
@pytest.mark.parametrize("delay", [0, None])
def test_the_work_of_workers_that_die_is_done_by_others_and_counts_once(
    data, undisturbed, tmp_path, place, policy, delay, seed
):
    rng = np.random.default_rng(seed)
    job = job_of(data, tmp_path, place, seed, on_worker_loss=policy, delay=delay, evaluate_every=1)
    killed = rng.permutation(job.view.workers)[:2].tolist()
    for rank in killed:
        job.simulation.kill(rank, float(rng.uniform(0.01, 0.12)))
    job.run(limit=100)
    assert job.outcome.exit == "finished", job.outcome.reason
    assert sorted(event["rank"] for event in events(job, "lost")) == sorted(killed)
    rows, occurrences = counted(job)
    assert rows == PASSES * TRAIN
    assert (occurrences == PASSES * undisturbed).all()
    assert [event["rows"] for event in events(job, "evaluation")] == [ROWS - TRAIN] * PASSES
    assert [(event["epoch"], event["examples"]) for event in events(job, "epoch")] == [
        (epoch + 1, (epoch + 1) * TRAIN) for epoch in range(PASSES)
    ]


def test_work_that_is_ignored_is_missing_and_nothing_waits_for_it(data, undisturbed, tmp_path, seed):
    job = job_of(data, tmp_path, "one node", seed, on_worker_loss="ignore")
    victim = job.view.workers[0]
    job.simulation.kill(victim, 0.03)
    job.run(limit=100)
    assert job.outcome.exit == "finished", job.outcome.reason
    rows, occurrences = counted(job)
    assert PASSES * TRAIN - 10 * 4 <= rows < PASSES * TRAIN  # no more than it had: two workloads
    assert (occurrences <= PASSES * undisturbed).all()
    assert events(job, "epoch")[-1]["examples"] <= rows


@everywhere
def test_what_a_slow_worker_has_is_done_by_another_and_counts_once(data, undisturbed, tmp_path, place, seed):
    done = []

    class Slow(Count):
        def train(self, batch):
            if self.worker.index == 1:
                self.seconds = 0.5
                done.append(batch)
            return super().train(batch)

    def program(worker):
        worker.train(Slow(worker, 2e-3))
        worker.table("rows").push([0], [100_000.0])  # after batches that others have done for it

    job = job_of(data, tmp_path, place, seed, program, evaluate_every=1).run(limit=100)
    slow = job.view.workers[1]
    rows, occurrences = counted(job)
    assert rows == PASSES * TRAIN + 3 * 100_000.0
    assert (occurrences == PASSES * undisturbed).all()
    assert [event["rows"] for event in events(job, "evaluation")] == [ROWS - TRAIN] * PASSES
    late = events(job, "straggler")
    assert {event["rank"] for event in late} == {slow}
    assert all(event["seconds"] > 3 * event["usual"] and event["by"] != slow for event in late)
    assert len(done) <= 2 * len(late)  # it leaves the rest when it is told


def test_a_slow_worker_goes_on_after_what_others_have_done_for_it(data, undisturbed, tmp_path, seed):
    """It is slow once, in the midst of a workload; what it does later counts, too."""
    done = []

    class Once(Count):
        def train(self, batch):
            if self.worker.index == 1:
                done.append(batch)
                self.seconds = 0.5 if len(done) == 2 else 2e-3
            return super().train(batch)

    def program(worker):
        worker.train(Once(worker, 2e-3))

    job = job_of(data, tmp_path, "one node", seed, program, evaluate_every=1, passes=6).run(limit=100)
    rows, occurrences = counted(job)
    assert len(events(job, "straggler")) >= 1
    assert len(done) > 4
    assert rows == 6 * TRAIN
    assert (occurrences == 6 * undisturbed).all()


def test_an_epoch_ends_when_its_share_is_done_and_a_slow_worker_is_not_waited_for(data, tmp_path, seed):
    def program(worker):
        worker.train(Count(worker, 5.0 if worker.index == 1 else 0.05))

    job = job_of(data, tmp_path, "one node", seed, program, epoch_share=0.75).run(limit=1000)
    epochs = events(job, "epoch")
    rows, _ = counted(job)
    assert len(epochs) == PASSES
    assert 0.75 * TRAIN <= epochs[0]["examples"] < TRAIN
    assert 0.75 * PASSES * TRAIN <= rows <= PASSES * TRAIN
    assert rows == json.loads((tmp_path / "result.json").read_text())["examples"]


# --- workers that run a program ---


@everywhere
def test_a_program_that_is_run_again_counts_once_and_gets_the_same_sums(place, seed):
    sums, ranks = {}, set()

    def program(worker):
        w, found = worker.table("w"), []
        ranks.add(worker.rank)
        for turn in range(60):
            rest(worker._fabric, 2e-3)
            w.push([turn, 9_000], [1.0, 1.0])
            found += worker.sum(worker.index + 1.0, turn).wait()
        worker.settle()
        sums[worker.index] = found
        return worker.index

    rng = np.random.default_rng(seed)
    plan = program_plan(program, table(), roles=Roles(servers=2, data_servers=0, workers=3))
    job = SimulatedJob(plan, PLACES[place](8), seed)
    killed = rng.permutation(job.view.workers)[:2].tolist()
    for rank in killed:
        job.simulation.kill(rank, float(rng.uniform(0.005, 0.06)))
    assert job.run(limit=100).results == [0, 1, 2]
    assert ranks > set(job.view.workers)
    assert sums[0] == sums[1] == sums[2] == [x for turn in range(60) for x in (6.0, 3.0 * turn)]
    assert sum(values.sum() for values in held(job).values()) == 3 * 60 * 2


@everywhere
def test_whoever_takes_the_place_of_a_worker_that_keeps_rows_gets_the_same_rows(data, place, seed):
    spec, base = data
    kept = {}

    def program(worker):
        rows = worker.rows()
        kept.setdefault(worker.index, []).append((rows.keys.tolist(), rows.labels.tolist(), rows.values.tolist()))
        for _ in range(20):
            rest(worker._fabric, 1e-3)
            worker.table("w").push([worker.index], [float(len(rows))])
            worker.sum(1.0).wait()
        worker.train(Count(worker, 1e-4))

    rng = np.random.default_rng(seed)
    plan = Plan(
        program=program,
        tables=lambda features: [table(rows=features), table("rows", rows=1)],
        roles=Roles(servers=2, data_servers=1, workers=3),
        data=spec,
        base=base,
        keeps_rows=True,
        passes=5,
        memory=SMALL,
        threads=1,
    )
    job = SimulatedJob(plan, PLACES[place](9), seed)
    for rank in rng.permutation(job.view.workers)[:2].tolist():
        job.simulation.kill(rank, float(rng.uniform(0.001, 0.05)))
    job.run(limit=100)
    assert job.outcome.exit == "finished", job.outcome.reason
    assert all(rows == all_of_it[0] for all_of_it in kept.values() for rows in all_of_it)
    assert sum(len(all_of_it[0][1]) for all_of_it in kept.values()) == TRAIN
    pushed = counted(job)[1]
    assert pushed[:3].tolist() == [20.0 * len(kept[index][0][1]) for index in range(3)]
