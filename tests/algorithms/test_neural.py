"""Networks: their gradients, and whole simulated jobs that train one."""

import json

import msgspec
import numpy as np
import pytest

from mpips.algorithms.neural import layers as at_work
from mpips.algorithms.neural.job import JobNetwork
from mpips.algorithms.neural.model import Model
from mpips.algorithms.neural.network import Network, alone
from mpips.algorithms.neural.settings import LayerError, NeuralSettings, Shape, shapes_of, weights_of
from mpips.algorithms.neural.training import Training, rate_at
from mpips.dataserver.image_batch import ImageBatch
from mpips.dataserver.images import ImagePart
from mpips.plan import MB, Memory, Plan
from mpips.scheduler.work import Work
from mpips.views.view import Roles
from tests.images import SIDE
from tests.simulated import PLACES, SLOW, SimulatedJob

CLASSES = 3
SMALL = [
    {"layer": "convolution", "channels": 4, "size": 3},
    {"layer": "relu"},
    {"layer": "pooling"},
    {"layer": "connected", "units": 16},
    {"layer": "relu"},
    {"layer": "connected"},
]
GENTLE = {"rate": 0.1, "momentum": 0.5, "schedule": "cosine"}  # for those who learn from old weights
GENTLER = GENTLE | {"rate": 0.04}  # for many of those
ALL_KINDS = [
    {"layer": "convolution", "channels": 4, "size": 3, "padding": 1},
    {"layer": "relu"},
    {"layer": "normalisation", "size": 3, "alpha": 0.4, "beta": 0.6, "bias": 1.5},
    {"layer": "pooling"},
    {"layer": "convolution", "channels": 5, "size": 3, "stride": 2, "padding": 2},
    {"layer": "pooling", "size": 2, "stride": 1},
    {"layer": "relu"},
    {"layer": "connected", "units": 7},
    {"layer": "relu"},
    {"layer": "dropout", "share": 0.3},
    {"layer": "connected"},
]
STACKS = {
    "all kinds": ALL_KINDS,
    "pooling alone": [{"layer": "pooling", "size": 3, "stride": 2}, {"layer": "connected"}],
    "convolved at last": [
        {"layer": "convolution", "channels": 4, "size": 3, "stride": 2},
        {"layer": "relu"},
        {"layer": "convolution", "channels": CLASSES, "size": 3},
        {"layer": "dropout", "share": 0.2},
    ],
    "rectified inputs": [{"layer": "relu"}, {"layer": "connected", "units": 4}, {"layer": "connected"}],
    "normalised at last": [{"layer": "connected"}, {"layer": "normalisation", "size": 2, "alpha": 0.5}],
    "pooled after being normalised": [
        {"layer": "convolution", "channels": 3, "size": 2},
        {"layer": "normalisation", "size": 2, "alpha": 2.0},
        {"layer": "relu"},
        {"layer": "pooling"},
        {"layer": "connected"},
    ],
    "normalised, then dropped": [
        {"layer": "convolution", "channels": 4, "size": 3},
        {"layer": "normalisation", "size": 3, "alpha": 2.0},
        {"layer": "dropout", "share": 0.4},
        {"layer": "connected"},
    ],
    "dropped, then convolved": [
        {"layer": "dropout", "share": 0.5},
        {"layer": "convolution", "channels": 3, "size": 4},
        {"layer": "dropout", "share": 0.2},
        {"layer": "convolution", "channels": 2, "size": 2},
        {"layer": "connected"},
    ],
}


def settings_of(layers, **settings):
    return msgspec.convert({"layers": layers, **settings}, NeuralSettings)


def network_of(layers, image, rng, dtype=np.float64):
    """A network with random weights, and these."""
    settings = settings_of(layers)
    shapes = shapes_of(settings.layers, image, CLASSES)
    weights = weights_of(settings.layers, shapes, 20)
    values = [(rng.normal(size=(w.units, w.inputs + 1)) / np.sqrt(w.inputs)).astype(dtype) for w in weights]
    return Network(settings.layers, shapes, weights, values), values


def nothing(number, layer, units, gradient):
    """Nobody wants the gradient."""


def noting(found):
    """Put gradients there by the weights' number."""

    def ready(number, layer, units, gradient):
        assert units.start == len(found.get(number, ()))
        found[number] = np.concatenate([*([found[number]] if number in found else []), gradient])

    return ready


def gradients_of(network, batch):
    """By the weights' number."""
    found = {}
    alone(network.learn(batch.images, batch.labels, 5, noting(found)))
    return found


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("n", [1, 6])
def test_gradients_are_those_of_finite_differences(name, n, rng, monkeypatch):
    monkeypatch.setattr(at_work, "GRADIENT", 1000)  # of large layers some units come after the others
    image = Shape(2, 8, 7)
    network, values = network_of(STACKS[name], image, rng)
    images = rng.integers(0, 256, (n, *image)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, n).astype(np.int32)
    gradients = gradients_of(network, ImageBatch(images, labels))
    assert sorted(gradients) == list(range(len(values)))
    for number, weights in enumerate(values):
        for at in np.ndindex(weights.shape) if weights.size < 200 else rng.integers(0, weights.shape, (100, 2)):
            at, was, step = tuple(at), weights[tuple(at)], 1e-6
            losses = []
            for change in (step, -step):
                weights[at] = was + change
                losses.append(alone(network.learn(images, labels, 5, nothing)))
            weights[at] = was
            assert np.isclose((losses[0] - losses[1]) / (2 * step), gradients[number][at], rtol=1e-4, atol=1e-5)


def test_what_is_dropped_follows_from_the_seed_and_is_all_used_in_the_end(rng):
    network, _ = network_of([{"layer": "dropout", "share": 0.4}, {"layer": "connected"}], Shape(1, 9, 9), rng)
    images, labels = rng.integers(0, 256, (4, 1, 9, 9)).astype(np.uint8), np.zeros(4, np.int32)
    losses = [alone(network.learn(images, labels, seed, nothing)) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    assert (alone(network.scores(images)) == alone(network.scores(images))).all()


def test_a_network_takes_any_number_of_images_after_any_other(rng):
    network, _ = network_of(ALL_KINDS, Shape(2, 8, 7), rng)
    images = rng.integers(0, 256, (9, 2, 8, 7)).astype(np.uint8)
    whole = alone(network.scores(images)).copy()
    for n in (1, 2, 3, 4, 5, 9, 1):
        assert np.allclose(alone(network.scores(images[:n])), whole[:, :n])


@pytest.mark.parametrize(
    ("layers", "index", "text"),
    [
        ([{"layer": "convolution", "channels": 2, "size": 13}], 0, "filters of 13×13 don't fit into 1×12×12"),
        ([{"layer": "pooling", "size": 9}, {"layer": "pooling", "size": 5}], 1, "windows of 5×5 don't fit into 1"),
        ([{"layer": "convolution", "channels": 2, "size": 2, "padding": 2}], 0, "must be below size, 2"),
        ([{"layer": "connected", "units": 4}], 0, "ends with 4 numbers, but the data have 3 classes"),
        ([{"layer": "pooling", "size": 4}], 0, "ends with 1×3×3 numbers, but the data have 3 classes"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, index, text):
    settings = settings_of(layers)
    with pytest.raises(LayerError) as error:
        shapes_of(settings.layers, Shape(1, SIDE, SIDE), CLASSES)
    assert error.value.index == index
    assert text in str(error.value)


def test_the_rate_rises_and_falls_as_it_is_to():
    settings = settings_of(SMALL, rate=0.8, schedule="cosine", warmup=2)
    rates = [rate_at(settings, epochs, 10) for epochs in (0, 1, 2, 5, 10)]
    assert rates[0] == pytest.approx(0.08)
    assert rates[1] == pytest.approx(0.55 * 0.8 * 0.5 * (1 + np.cos(np.pi / 10)))
    assert rates[3] == pytest.approx(0.4)
    assert rates[4] == 0.0
    assert rate_at(settings_of(SMALL, rate=0.8), 7.3, 10) == 0.8


# --- jobs -------------------------------------------------------------------------------------------------------------


def plan_of(data, in_step=True, passes=4, neural=None, **settings):
    spec, folder = data
    usual = {"layers": SMALL, "rate": 0.1, "momentum": 0.8, "decay": 1e-4, "threads": 1}
    chosen = settings_of(**{**usual, **(neural or {})})
    shapes = shapes_of(chosen.layers, Shape(1, SIDE, SIDE), CLASSES)
    weights = weights_of(chosen.layers, shapes, spec.batch)
    delay = settings.get("delay", 0 if in_step else None)
    network = JobNetwork(chosen, shapes, weights, ["bar", "pole", "square"], passes, delay, spec, folder)
    return network, Plan(
        **{
            "program": network.train,
            "tables": lambda _: network.tables,
            "data": spec,
            "base": folder,
            "roles": Roles(servers=2, data_servers=1, workers=1),
            "passes": passes,
            "seed": 3,
            "delay": delay,
            "classes": CLASSES,
            "memory": Memory(server=4 * MB, data_server=4 * MB, worker=4 * MB),
            "threads": 1,
            "about": network.about,
            **settings,
        }
    )


def run(plan, nodes="one node", kills=(), seed=1, **settings):
    """Run a job; role and simulated time of who is killed."""
    roles = plan.roles
    ranks = 1 + roles.servers + roles.data_servers + roles.workers + (roles.spares or 0)
    job = SimulatedJob(plan, PLACES[nodes](ranks), seed, **settings)
    for role, at in kills:
        job.kill(role, at)
    return job.run()


def result_of(job):
    return json.loads((job.plan.run / "result.json").read_text())


def weights_at_servers(job, network):
    """What the servers hold of every layer."""
    found = [np.zeros((each.units, each.inputs + 1), np.float32) for each in network.weights]
    for server in job.servers.values():
        for matrix, shards in zip(found, server.tables, strict=True):
            for shard in shards.led:
                lo, hi = shards.spec.shard_range(shard)
                matrix[lo:hi] = shards.dense_rows(shard)[0]
    return found


def test_one_worker_in_step_trains_as_a_plain_loop_does(data, tmp_path):
    network, plan = plan_of(data, passes=2, run=tmp_path, neural={"schedule": "cosine"})
    order = []

    def program(worker):
        network.train(_Watched(worker, order))

    job = run(Plan(**{**vars(plan), "program": program}))
    spec, folder = data
    part = ImagePart(spec, folder, 0, 1, 1)
    start = run(Plan(**{**vars(plan), "program": lambda worker: None, "data": None}))
    values = weights_at_servers(start, network)
    velocity = [np.zeros_like(each) for each in values]
    plain = Network(network.settings.layers, network.shapes, network.weights, values)
    for workload, batch in order:
        blob = np.empty(part.size(batch), np.uint8)
        part.read(batch, workload.epoch, blob)
        images = ImageBatch.unpack(blob)
        rate = rate_at(network.settings, workload.epoch - 1 + workload.begun, 2)
        for k, gradient in gradients_of(plain, images).items():
            velocity[k] = 0.8 * velocity[k] - rate * (gradient / len(images) + 1e-4 * values[k])
            values[k] += velocity[k]
    assert len(order) == 2 * 15
    for trained, expected in zip(weights_at_servers(job, network), values, strict=True):
        assert np.allclose(trained, expected, atol=2e-5)
        assert np.abs(trained).max() > 0.05


@pytest.mark.parametrize("nodes", ["one node", "nodes of their own"])
def test_activations_make_the_model_that_gradients_make(data, nodes):
    made = []
    for push in ("gradient", "activations"):
        layers = [layer | ({"push": push} if layer["layer"] == "connected" else {}) for layer in SMALL]
        network, plan = plan_of(data, passes=2, neural={"layers": layers})
        assert [each.product for each in network.weights] == [False, *[push == "activations"] * 2]
        made.append(weights_at_servers(run(plan, nodes), network))
    for one, other in zip(*made, strict=True):
        assert np.allclose(one, other, atol=1e-4)
        assert np.abs(one).max() > 0.05


class _Watched:
    """A worker whose batches are noted."""

    def __init__(self, worker, order):
        self._worker, self._order = worker, order

    def __getattr__(self, name):
        return getattr(self._worker, name)

    def train(self, algorithm):
        watched, learn = self, algorithm.train

        def train(batch):
            watched._order.append(watched._worker.doing)
            return learn(batch)

        algorithm.train = train
        self._worker.train(algorithm)


@pytest.mark.parametrize("nodes", ["one node", "nodes of their own"])
@pytest.mark.parametrize(("workers", "threads", "step"), [(1, 1, 0), (1, 3, 5), (3, 2, 5)])
def test_it_learns_whoever_computes(data, tmp_path, nodes, workers, threads, step):
    neural = {"threads": threads, "step": step} | (GENTLER if workers * threads > 1 else {})
    roles = Roles(servers=2, data_servers=1, workers=workers)
    _, plan = plan_of(data, in_step=False, passes=16, run=tmp_path, roles=roles, neural=neural)
    metrics = result_of(run(plan, nodes))["metrics"]
    assert metrics["accuracy"] > 0.9
    counts = np.array(metrics["confusion"])
    assert counts.sum() == 90
    assert np.isclose(np.trace(counts) / 90, metrics["accuracy"])


def test_what_is_evaluated_is_what_the_servers_have(data, tmp_path):
    network, plan = plan_of(data, in_step=False, run=tmp_path, roles=Roles(servers=2, data_servers=2, workers=3))
    job = run(plan)
    counts = np.array(result_of(job)["metrics"]["confusion"])
    values = weights_at_servers(job, network)
    plain = Network(network.settings.layers, network.shapes, network.weights, values)
    spec, folder = data
    part = ImagePart(spec, folder, 0, 1, 1)
    expected = np.zeros((CLASSES, CLASSES), int)
    for batch in range(part.train, part.train + part.test):
        blob = np.empty(part.size(batch), np.uint8)
        part.read(batch, 1, blob)
        images = ImageBatch.unpack(blob)
        np.add.at(expected, (images.labels, alone(plain.scores(images.images)).argmax(axis=0)), 1)
    assert (counts == expected).all()


@pytest.mark.parametrize(("delay", "workers"), [(0, 4), (1, 8), (3, 2)])
def test_what_may_be_missing_is_bounded(data, tmp_path, monkeypatch, delay, workers):
    """Batches that were over before the weights were read that another one begins with are in them."""
    over, began, known, missing = {}, {}, {}, []
    pull, meet, learn, trained = Model.pull, Model.meet, Training._learn, Work._trained

    def note_pull(self):
        began[self] = sum(over.values())
        pull(self)

    def note_meet(self, wait):
        pulls = self._pulls
        meet(self, wait)
        if pulls and not self._pulls:
            known[self] = began[self]

    def note_learn(self, *arguments):
        missing.append(sum(over.values()) - known[self._model])
        return learn(self, *arguments)

    def note_trained(self, ledger, done, message, now):
        over[done.workload.number] = len(done.workload.batches)
        return trained(self, ledger, done, message, now)

    monkeypatch.setattr(Model, "pull", note_pull)
    monkeypatch.setattr(Model, "meet", note_meet)
    monkeypatch.setattr(Training, "_learn", note_learn)
    monkeypatch.setattr(Work, "_trained", note_trained)
    roles = Roles(servers=2, data_servers=1, workers=workers)
    _, plan = plan_of(data, delay=delay, run=tmp_path, roles=roles)
    assert result_of(run(plan, "nodes of their own"))["exit"] == "finished"
    assert len(missing) == sum(over.values()) > 30
    assert max(missing) <= delay + 1


@pytest.mark.parametrize("role", ["server", "worker", "data server", "scheduler"])
def test_a_job_that_loses_a_rank_learns_all_the_same(data, tmp_path, role, seed):
    roles = Roles(servers=2, data_servers=1, workers=2, spares=1)
    _, plan = plan_of(data, in_step=False, passes=16, run=tmp_path, roles=roles, replicas=1, neural=GENTLE)
    alone = run(plan, "nodes of their own", latency=SLOW)
    at = 0.5 * alone.simulation.time
    result_of(alone)
    job = run(plan, "nodes of their own", [(role, at)], seed, latency=SLOW)
    assert result_of(job)["metrics"]["accuracy"] > 0.85


def test_it_goes_on_from_a_generation_and_ends_as_well(data, tmp_path):
    _, plan = plan_of(data, in_step=False, passes=3, run=tmp_path, saves=True)
    result_of(run(plan))
    longer = Plan(**{**vars(plan), "passes": 8, "roles": Roles(servers=3, data_servers=1, workers=1)})
    job = run(longer, resume=True)
    assert result_of(job)["metrics"]["accuracy"] > 0.9
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [4, 5, 6, 7, 8]
