"""Sparse logistic regression through whole simulated jobs: what they learn, and how they end when something dies."""

import json
import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mpips.algorithms import linear
from mpips.dataserver.batch import Batch
from mpips.dataserver.source import prepare
from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.messages import Workload
from mpips.plan import Plan
from mpips.views.view import Roles
from tests.simulated import PLACES, SLOW, SMALL, SimulatedJob, libsvm, table

ROWS, FEATURES = 2_000, 300
RULES = {
    "ftrl": {"name": "ftrl", "alpha": 0.2, "beta": 1.0, "l1": 0.3, "l2": 0.1},
    "adagrad": {"name": "adagrad", "alpha": 0.2, "beta": 1.0, "l1": 0.002, "l2": 0.001},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", ROWS, FEATURES, np.random.default_rng(7))
    return DataSpec(format="libsvm", files=("x.libsvm",), batch=64, test=TestSplit(every=5)), folder


def plan_of(data, kind="dense", rule="ftrl", **settings):
    spec, folder = data
    return Plan(
        **{
            "program": lambda worker: linear.train(worker, "w"),
            "tables": lambda features: [table(kind=kind, rows=features, rule=RULES[rule])],
            "data": spec,
            "base": folder,
            "roles": Roles(servers=2, data_servers=1, workers=3),
            "passes": 3,
            "delay": 4,
            "model": "w",
            "memory": SMALL,
            "threads": 1,
            **settings,
        }
    )


def result_of(job):
    """The result of a job with a run folder, which must have finished."""
    assert job.outcome.exit == "finished", job.outcome.reason
    return json.loads((job.plan.run / "result.json").read_text())


def weights_of(job):
    """The model as the servers hold it, (FEATURES,)."""
    weights = np.zeros(FEATURES)
    for server in job.servers.values():
        shards = server.tables[0]
        for shard in shards.held:
            if shards.spec.kind == "dense":
                lo, hi = shards.spec.shard_range(shard)
                weights[lo:hi] = shards.dense_rows(shard)[0][:, 0]
            else:
                keys, values, _ = shards.rows(shard)
                weights[keys.astype(int)] = values[:, 0]
    return weights


def batches_of(data, parts=1):
    """Every batch of a data server, by number."""
    prepared = prepare(*data, 0, parts)
    batches = []
    for number in range(prepared.train + prepared.test):
        blob = np.empty(prepared.size(number), np.uint8)
        prepared.read(number, 1, blob)
        batches.append(Batch.unpack(blob))
    prepared.close()
    return batches, prepared.train


def matrix(batch):
    x = np.zeros((len(batch), batch.keys.size))
    for row in range(len(batch)):
        span = slice(batch.indptr[row], batch.indptr[row + 1])
        np.add.at(x[row], batch.indices[span], batch.values[span] if batch.values.size else 1.0)
    return x


def numpy_loop(batches, order, rule):
    """The same training in NumPy, batch after batch, in float64."""
    w = np.zeros(FEATURES)
    n, z = np.zeros(FEATURES), np.zeros(FEATURES)
    p = {"alpha": 0.1, "beta": 1.0, "l1": 0.0, "l2": 0.0} | rule
    for number in order:
        batch = batches[number]
        keys, x = batch.keys.astype(int), matrix(batch)
        g = x.T @ (1 / (1 + np.exp(-x @ w[keys])) - batch.labels)
        if rule["name"] == "ftrl":
            root = np.sqrt(n[keys] + g * g)
            z[keys] += g - (root - np.sqrt(n[keys])) / p["alpha"] * w[keys]
            n[keys] += g * g
            shrunk = np.sign(z[keys]) * np.maximum(np.abs(z[keys]) - p["l1"], 0)
            w[keys] = -shrunk / ((p["beta"] + root) / p["alpha"] + p["l2"])
        else:
            g = g + p["l2"] * w[keys]
            n[keys] += g * g
            rate = p["alpha"] / (p["beta"] + np.sqrt(n[keys]))
            stepped = w[keys] - rate * g
            w[keys] = np.sign(stepped) * np.maximum(np.abs(stepped) - rate * p["l1"], 0)
    return w


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("place", ["one node", "nodes of their own"])
def test_one_worker_without_delay_trains_as_a_numpy_loop_does(data, kind, rule, place, tmp_path):
    """Tolerance: the table is float32, the loop float64; 75 steps, so 1e-4."""
    plan = plan_of(data, kind, rule, roles=Roles(servers=2, data_servers=1, workers=1), delay=0, run=tmp_path)
    job = SimulatedJob(plan, PLACES[place](5), 3)
    order = []
    given = job.simulation.ranks[4].on

    def on(message_kind, handler):  # the order in which the worker gets its batches
        def noted(source, message):
            order.extend(message.batches if message.train else [])
            handler(source, message)

        given(message_kind, noted if message_kind is Workload else handler)

    job.simulation.ranks[4].on = on
    job.run()
    metrics = result_of(job)["metrics"]
    batches, train = batches_of(data)
    assert sorted(order) == sorted(list(range(train)) * 3)
    expected = numpy_loop(batches, order, RULES[rule])
    weights = weights_of(job)
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(weights).max() > 0.1
    scores = np.concatenate([matrix(b) @ weights[b.keys.astype(int)] for b in batches[train:]])
    labels = np.concatenate([b.labels for b in batches[train:]])
    assert metrics["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=2e-3)
    assert metrics["logloss"] == pytest.approx(np.logaddexp(0, np.where(labels == 1, -scores, scores)).mean(), rel=1e-4)
    assert metrics["nonzeros"] == np.count_nonzero(weights)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("delay", [0, 4, None])
def test_many_workers_learn_about_what_one_learns(data, place, delay, tmp_path):
    plan = plan_of(data, delay=delay, passes=10, evaluate_every=5, run=tmp_path)
    job = SimulatedJob(plan, PLACES[place](7), 1).run()
    result = result_of(job)
    assert result["examples"] == 10 * ROWS * 4 // 5
    batches, train = batches_of(data)
    order = [number for _ in range(10) for number in range(train)]
    alone = numpy_loop(batches, order, RULES["ftrl"])
    assert np.corrcoef(weights_of(job), alone)[0, 1] > 0.99
    scores = np.concatenate([matrix(b) @ alone[b.keys.astype(int)] for b in batches[train:]])
    labels = np.concatenate([b.labels for b in batches[train:]])
    assert result["metrics"]["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=0.02)


@pytest.mark.parametrize("data_servers", [0, 3])
def test_several_data_servers_or_the_schedulers_rank_serve_every_row_once(data, data_servers, tmp_path):
    plan = plan_of(data, roles=Roles(servers=2, data_servers=data_servers, workers=3), run=tmp_path)
    job = SimulatedJob(plan, [0] * (6 + data_servers), 1).run()
    assert result_of(job)["examples"] == 3 * ROWS * 4 // 5


def simulate_200(data, seed):
    start = time.perf_counter()
    plan = plan_of(data, roles=Roles(servers=40, data_servers=9, workers=150), passes=2)
    job = SimulatedJob(plan, [rank // 10 for rank in range(200)], seed).run()
    assert job.outcome.exit == "finished", job.outcome.reason
    simulation = job.simulation
    return (
        simulation.time,
        simulation.messages,
        simulation.bytes,
        weights_of(job).tobytes(),
    ), time.perf_counter() - start


def test_two_hundred_ranks_run_in_seconds_and_the_same_way_for_the_same_seed(data):
    simulate_200(data, 1)  # kernels, cache
    first, seconds = simulate_200(data, 11)
    again, _ = simulate_200(data, 11)
    other, _ = simulate_200(data, 12)
    assert first == again
    assert first != other
    assert seconds < 20


def test_a_run_with_checkpoints_is_the_same_for_the_same_seed(data, tmp_path):
    def simulate(seed, folder):
        job = SimulatedJob(
            plan_of(data, run=tmp_path / folder, saves=True, save_every=0.05), [0] * 7, seed, latency=SLOW
        ).run()
        assert job.outcome.exit == "finished", job.outcome.reason
        return job.simulation.time, job.simulation.messages, weights_of(job).tobytes()

    assert simulate(5, "a") == simulate(5, "b")


def test_an_interrupted_job_goes_on_where_it_was_and_trains_every_batch_as_often_as_it_should(data, tmp_path):
    """On other ranks: the second run has one server more."""

    def examples(job):
        return json.loads((job.plan.run / "result.json").read_text())["examples"]

    settings = {"run": tmp_path, "saves": True, "save_every": 0.0, "passes": 4}
    job = SimulatedJob(plan_of(data, **settings), [0] * 7, 1, latency=SLOW)
    job.simulation.at(0.15, lambda: job.ranks[0].wish_to_end("SIGINT received"))
    job.run()
    assert job.outcome[:2] == ("interrupted", "SIGINT received")
    before = examples(job)
    assert 0 < before < 4 * ROWS * 4 // 5
    roles = Roles(servers=3, data_servers=1, workers=3)
    job = SimulatedJob(plan_of(data, **settings, roles=roles), [0] * 8, 1, True, SLOW).run()
    assert job.outcome.exit == "finished", job.outcome.reason
    assert before + examples(job) == 4 * ROWS * 4 // 5


VICTIMS = ["scheduler", "server", "data server", "worker"]


def victim(job, role):
    return next(rank for rank in range(7) if job.view.role(rank) == role)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("role", VICTIMS)
def test_a_job_whose_rank_is_killed_at_any_time_trains_on_all_rows_or_ends_with_a_reason_that_names_it(
    data, role, place, tmp_path, seed
):
    rng = np.random.default_rng(seed)
    for _ in range(5):
        plan = plan_of(data, run=tmp_path)
        job = SimulatedJob(plan, PLACES[place](7), int(rng.integers(1 << 30)), latency=SLOW)
        rank = victim(job, role)
        at = float(rng.uniform(0.0, 0.2))
        job.simulation.kill(rank, at)
        job.run(limit=100)
        assert job.outcomes[rank] is None
        (exit_,) = {outcome.exit for outcome in job.outcomes if outcome is not None}
        if exit_ == "finished":
            result = json.loads((tmp_path / "result.json").read_text())
            assert result["examples"] == plan.passes * ROWS * 4 // 5
        else:
            assert exit_ == "failed"
            assert role != "worker"
            assert all(f"rank {rank}" in outcome.reason for outcome in job.outcomes if outcome is not None)
        assert job.simulation.time < 1.0


@pytest.mark.parametrize("role", VICTIMS)
def test_a_rank_that_dies_at_any_message_leaves_nobody_hanging(data, role, seed):
    rng = np.random.default_rng(seed)
    for _ in range(10):
        job = SimulatedJob(plan_of(data), PLACES["two nodes"](7), int(rng.integers(1 << 30)), latency=SLOW)
        job.simulation.kill_at_message(victim(job, role), int(rng.integers(1, 60)))
        job.run(limit=100)
        assert job.simulation.time < 1.0
        assert {outcome.exit for outcome in job.outcomes if outcome} <= {"failed", "finished"}


def test_a_spare_that_dies_is_not_missed(data):
    job = SimulatedJob(plan_of(data), [0] * 8, 1, latency=SLOW)
    assert job.view.role(7) == "spare"
    job.simulation.kill(7, 0.05)
    assert job.run().outcome.exit == "finished"


def test_a_job_that_pushes_nan_ends_with_worker_and_batch_in_its_reason(data):
    class Broken(linear.LogisticRegression):
        def train(self, batch):
            keys = self._weights.keys(batch.keys)
            values = np.zeros(batch.keys.size, np.float32)
            values[2] = np.nan
            self._weights.push(keys, values)
            return 0.0

    plan = plan_of(
        data,
        program=lambda worker: worker.train(Broken(worker.table("w"))),
        roles=Roles(servers=1, data_servers=1, workers=1),
    )
    for place in PLACES.values():
        outcome = SimulatedJob(plan, place(4), 1).run().outcome
        assert outcome.exit == "failed"
        assert outcome.reason.startswith("worker 3, epoch 1, batch ")
        assert 'of part 0: push to table "w" refused: 1 of ' in outcome.reason
        assert "values are NaN or infinite, the first at key" in outcome.reason


def test_a_programs_own_error_ends_the_job_with_its_place(data, capsys):
    def program(worker):
        raise ZeroDivisionError("by hand")

    outcome = SimulatedJob(plan_of(data, program=program), [0] * 7, 1).run().outcome
    assert outcome.exit == "failed"
    assert "ZeroDivisionError" in outcome.reason
    assert "test_linear.py" in outcome.reason
    assert "by hand" in outcome.reason


def test_data_that_can_not_be_read_end_the_job_with_file_and_line(tmp_path):
    (tmp_path / "bad.libsvm").write_text("1 3:1\n0 x:1\n")
    plan = plan_of((DataSpec(format="libsvm", files=("bad.libsvm",)), tmp_path))
    job = SimulatedJob(plan, [0] * 7, 1).run()
    assert {outcome.exit for outcome in job.outcomes} == {"failed"}
    assert "bad.libsvm: line 2" in job.outcome.reason


def test_a_data_server_with_room_for_a_few_batches_serves_them_all(data, tmp_path):
    batches, _ = batches_of(data)
    largest = max(batch.nbytes for batch in batches)
    memory = type(SMALL)(server=SMALL.server, data_server=4 * (largest + 64), worker=SMALL.worker)
    for place in PLACES.values():
        job = SimulatedJob(plan_of(data, memory=memory, run=tmp_path), place(7), 1).run()
        assert result_of(job)["examples"] == 3 * ROWS * 4 // 5
