"""The batch solver through whole simulated jobs: where it arrives, when it stops, and what it says of its way."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from mpips.algorithms import linear
from mpips.algorithms.settings import BlockSettings
from mpips.dataserver.spec import DataSpec, FeatureSpec, TestSplit
from mpips.plan import Plan
from mpips.views.view import Roles
from tests.algorithms.test_linear import FEATURES, batches_of, matrix, result_of, weights_of
from tests.simulated import PLACES, SLOW, SMALL, SimulatedJob, libsvm, table

ROWS = 600
KKT = [{"name": "kkt", "tolerance": 0.01}]
PENALTIES = {"l1": {"l1": 0.5}, "l2": {"l2": 2.0}, "both": {"l1": 0.5, "l2": 1.0}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rows with real values, several features of a block in each."""
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", ROWS, FEATURES, np.random.default_rng(7))
    return DataSpec(format="libsvm", files=("x.libsvm",), batch=16, test=TestSplit(every=5)), folder


@pytest.fixture(scope="module")
def rows(data):
    """The training rows and the test rows, each as a matrix with its labels."""
    batches, train = batches_of(data)
    parts = []
    for some in (batches[:train], batches[train:]):
        x = np.zeros((sum(map(len, some)), FEATURES))
        start = 0
        for batch in some:
            x[start : start + len(batch), batch.keys.astype(int)] = matrix(batch)
            start += len(batch)
        parts.append((x, np.concatenate([batch.labels for batch in some])))
    return parts


def objective(w, x, labels, l1=0.0, l2=0.0):
    """Per row, as the solver reports it."""
    scores = x @ w
    loss = np.logaddexp(0, np.where(labels == 1, -scores, scores)).sum()
    return (loss + l1 * np.abs(w).sum() + l2 / 2 * w @ w) / labels.size


def best(x, labels, l1=0.0, l2=0.0):
    """The optimum: of liblinear, or where there are both penalties of saga."""
    if l1 and l2:
        both = {"solver": "saga", "C": 1 / (l1 + l2), "l1_ratio": l1 / (l1 + l2), "random_state": 1}
    else:
        both = {"solver": "liblinear", "C": 1 / (l1 or l2), "l1_ratio": float(l1 > 0), "random_state": 1}
    model = LogisticRegression(**both, fit_intercept=False, tol=1e-7, max_iter=20_000).fit(x, labels)
    return objective(model.coef_[0], x, labels, l1, l2)


def plan_of(data, penalty="l1", workers=2, servers=1, blocks=7, order="random", tolerance=1e-7, filters=(), **settings):
    spec, folder = data
    passes = settings.get("passes", 1_000)
    block = BlockSettings(blocks=blocks, order=order, tolerance=tolerance)
    of_w = {"aggregate": True, "rule": {"name": "proximal", **PENALTIES[penalty]}, "push_filters": list(filters)}
    return Plan(
        **{
            "program": lambda worker: linear.solve(worker, "w", passes, 1, block),
            "tables": lambda features: [table(rows=max(1, features), **of_w)],
            "data": spec,
            "base": folder,
            "roles": Roles(servers=servers, data_servers=1, workers=workers),
            "passes": passes,
            "delay": 0,
            "model": "w",
            "keeps_rows": True,
            "memory": SMALL,
            "threads": 1,
            **settings,
        }
    )


def run(plan, place="one node", seed=1, **settings):
    ranks = 2 + plan.roles.servers + plan.roles.workers
    return SimulatedJob(plan, PLACES[place](ranks), seed, **settings).run()


def reports_of(job):
    """The figures of every pass."""
    events = [json.loads(line) for line in (job.plan.run / "metrics.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "report"]


PLACES_AND_SETTINGS = [
    ("one node", {"workers": 1, "blocks": 1, "order": "cyclic"}),
    ("one node", {"workers": 2, "delay": 1}),
    ("nodes of their own", {"workers": 3, "servers": 2, "order": "cyclic"}),
    ("nodes of their own", {"workers": 2, "servers": 2, "delay": 4, "filters": KKT}),
    ("two nodes", {"workers": 3, "servers": 2, "delay": None}),
    ("two nodes", {"workers": 2, "blocks": 1, "delay": 4, "filters": KKT}),
    ("one node", {"workers": 3, "delay": "auto", "filters": KKT}),
    (
        "nodes of their own",
        {"workers": 2, "servers": 2, "filters": [*KKT, {"name": "key_cache"}, {"name": "compression"}]},
    ),
]


@pytest.mark.parametrize(
    ("penalty", "place", "settings"),
    [  # each with two of the three penalties
        (penalty, *how)
        for number, how in enumerate(PLACES_AND_SETTINGS)
        for index, penalty in enumerate(PENALTIES)
        if (number + index) % 3
    ],
    ids=str,
)
def test_it_arrives_where_liblinear_does(data, rows, penalty, place, settings, tmp_path, seed):
    job = run(plan_of(data, penalty, run=tmp_path, **settings), place, seed)
    result = result_of(job)
    train, _ = rows
    optimum = best(*train, **PENALTIES[penalty])
    reached = objective(weights_of(job), *train, **PENALTIES[penalty])
    assert reached == pytest.approx(optimum, rel=1e-4)
    assert reached > optimum * (1 - 1e-6)
    assert result["metrics"]["objective"] == pytest.approx(reached, rel=1e-6)  # of the model that is left
    nonzeros = np.count_nonzero(weights_of(job))
    assert result["metrics"]["nonzeros"] == nonzeros
    assert (nonzeros < FEATURES) == (penalty != "l2")


@pytest.mark.parametrize("filters", [[], KKT], ids=["all", "kkt"])
@pytest.mark.parametrize("blocks", [1, 7])
def test_without_delay_no_pass_raises_the_objective(data, blocks, filters, tmp_path, seed):
    job = run(plan_of(data, blocks=blocks, filters=filters, run=tmp_path), seed=seed)
    course = [report["objective"] for report in reports_of(job)]
    assert len(course) > 10
    assert (np.diff(course) <= 1e-7 * course[0]).all()


@pytest.fixture
def together(tmp_path):
    """Forty features that are always together, and few rows of one label: all weights move at once, and far."""
    labels = np.arange(500) % 10 == 0
    line = " ".join(f"{feature}:1" for feature in range(40))
    (tmp_path / "x.libsvm").write_text("".join(f"{int(label)} {line}\n" for label in labels))
    data = DataSpec(format="libsvm", files=("x.libsvm",), batch=50), tmp_path
    return data, best(np.ones((500, 40)), labels, l1=0.5)


def test_features_of_a_block_that_are_always_together_do_not_make_it_overshoot(together, tmp_path):
    data, optimum = together
    course = [report["objective"] for report in reports_of(run(plan_of(data, blocks=1, run=tmp_path / "run")))]
    assert (np.diff(course) <= 1e-7 * course[0]).all()
    assert course[-1] == pytest.approx(optimum, rel=1e-4)


def test_a_pass_that_raises_the_objective_does_not_stop_it(together, tmp_path):
    """Where the features are in many blocks that are under way at once, the steps add up to more than is good."""
    data, optimum = together
    job = run(plan_of(data, blocks=8, delay=None, run=tmp_path / "run"), latency=SLOW)
    course = [report["objective"] for report in reports_of(job)]
    assert (np.diff(course) > 0).any()
    assert course[-1] == pytest.approx(optimum, rel=1e-4)


@pytest.mark.parametrize("filters", [[], KKT], ids=["all", "kkt"])
def test_without_delay_the_model_is_the_same_bits_whatever_messages_take_and_where_ranks_are(data, filters, seed):
    plan = plan_of(data, workers=3, servers=2, filters=filters, passes=6)
    models = {
        weights_of(run(plan, place, seed + i, latency=latency)).tobytes()
        for place in PLACES
        for i, latency in enumerate([(5e-6, 50e-6), SLOW])
    }
    assert len(models) == 1
    assert np.frombuffer(models.pop()).any()


def test_it_stops_when_a_pass_changes_the_objective_by_less_than_the_tolerance(data, tmp_path):
    passes = {}
    for tolerance in (1e-2, 1e-4):
        job = run(plan_of(data, tolerance=tolerance, run=tmp_path / str(tolerance)))
        course = [report["objective"] for report in reports_of(job)]
        falls = np.abs(np.diff(course)) / course[1:]
        assert falls[-1] < tolerance
        assert (falls[:-1] >= tolerance).all()
        passes[tolerance] = len(course)
        assert result_of(job)["examples"] == len(course) * ROWS * 4 // 5
    assert 2 < passes[1e-2] < passes[1e-4]


def test_it_stops_after_so_many_passes(data, tmp_path):
    job = run(plan_of(data, tolerance=0.0, passes=5, run=tmp_path))
    assert [report["pass"] for report in reports_of(job)] == [1, 2, 3, 4, 5]


def test_the_kkt_filter_leaves_weights_out_and_says_how_many(data, tmp_path):
    job = run(plan_of(data, filters=KKT, run=tmp_path))
    active = [report["active"] for report in reports_of(job)]
    assert active[0] == 1.0
    assert min(active) < 0.5


@pytest.mark.parametrize("filters", [[], KKT], ids=["all", "kkt"])
def test_a_worker_without_any_row_takes_part(data, rows, filters, tmp_path):
    spec, folder = data
    one_batch = DataSpec(format=spec.format, files=spec.files, batch=1_024, test=spec.test)
    job = run(plan_of((one_batch, folder), workers=3, filters=filters, run=tmp_path), "two nodes")
    assert result_of(job)["metrics"]["objective"] == pytest.approx(best(*rows[0], l1=0.5), rel=1e-4)


def test_rows_without_any_feature_are_no_mistake(tmp_path):
    (tmp_path / "x.libsvm").write_text("1\n0\n1\n")
    data = DataSpec(format="libsvm", files=("x.libsvm",)), tmp_path
    job = run(plan_of(data, filters=KKT, run=tmp_path / "run"))
    assert result_of(job)["metrics"]["objective"] == pytest.approx(np.log(2))


@pytest.mark.parametrize("place", ["one node", "nodes of their own"])
def test_an_evaluation_of_the_test_rows_follows(data, rows, place, tmp_path):
    job = run(plan_of(data, run=tmp_path), place)
    metrics = result_of(job)["metrics"]
    _, (x, labels) = rows
    chances = 1 / (1 + np.exp(-x @ weights_of(job)))
    assert metrics["auc"] == pytest.approx(roc_auc_score(labels, chances), abs=2e-3)
    assert metrics["logloss"] == pytest.approx(log_loss(labels, chances), rel=1e-4)


@pytest.mark.parametrize("filters", [[], KKT], ids=["all", "kkt"])
def test_an_interrupted_job_ends_soon_and_goes_on_from_its_weights(data, rows, filters, tmp_path):
    """On other ranks: the rows are handed out again, the weights are kept."""
    plan = plan_of(data, filters=filters, run=tmp_path, saves=True)
    whole = run(plan, latency=SLOW)
    passes, lasted = len(reports_of(whole)), whole.simulation.time

    job = SimulatedJob(plan, PLACES["one node"](5), 1, latency=SLOW)
    at = 0.7 * lasted
    job.simulation.at(at, lambda: job.ranks[0].wish_to_end("SIGINT received"))
    job.run()
    assert job.outcome[:2] == ("interrupted", "SIGINT received")
    assert job.simulation.time < at + 1.0
    first = reports_of(job)
    assert 3 < len(first) < passes

    job = run(replace(plan, roles=Roles(servers=2, data_servers=1, workers=3)), latency=SLOW, resume=True)
    result, second = result_of(job), reports_of(job)
    assert second[0]["objective"] <= first[-1]["objective"] * (1 + 1e-6)
    assert len(second) < passes
    assert result["metrics"]["objective"] == pytest.approx(best(*rows[0], l1=0.5), rel=1e-4)


def test_a_finished_job_that_is_resumed_stops_at_once(data, tmp_path):
    plan = plan_of(data, run=tmp_path, saves=True, tolerance=1e-5)
    before = result_of(run(plan))["metrics"]["objective"]
    job = run(plan, resume=True)
    assert len(reports_of(job)) <= 3
    assert result_of(job)["metrics"]["objective"] == pytest.approx(before, rel=1e-4)


def test_features_of_two_fields_are_never_in_one_block(tmp_path, seed):
    """With blocks = 1 each field is a block; rows then have one feature in each, and every step is a Newton step."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 400), rng.integers(0, 7, 400)
    labels = rng.random(400) < 1 / (1 + np.exp(-(a - 2.0) + (b - 3.0) / 2))
    lines = [f"{x},{y},{int(label)}" for x, y, label in zip(a, b, labels, strict=True)]
    (tmp_path / "x.csv").write_text("a,b,late\n" + "\n".join(lines) + "\n")
    spec = DataSpec(
        format="csv",
        files=("x.csv",),
        label="late",
        batch=16,
        features=FeatureSpec(keys="dictionary", fields=("a", "b")),
    )
    pushed = []

    def program(worker):
        w = worker.table("w")
        push = w.push

        def noted(keys, values, within=None, **others):
            pushed.append((within, keys.tolist()))
            return push(keys, values, within=within, **others)

        w.push = noted
        linear.solve(worker, "w", 50, 1, BlockSettings(blocks=1, order="cyclic"))
        return worker.feature_groups

    job = run(plan_of((spec, tmp_path), program=program, run=tmp_path / "run", passes=50))
    groups = {range(lo, hi) for lo, hi in job.results[0]}
    assert sorted(map(len, groups)) == [5, 7]
    assert {within for within, _ in pushed} == groups
    assert all(key in within for within, keys in pushed for key in keys)
    x = np.hstack([np.eye(5)[a], np.eye(7)[b]])
    assert result_of(job)["metrics"]["objective"] == pytest.approx(best(x, labels, l1=0.5), rel=1e-4)
