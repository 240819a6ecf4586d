"""A model for scikit-learn, written by `mpips inspect`: used as somebody would who has no mpips."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mpips.checkpoint import CheckpointError, Generation, generations
from mpips.checkpoint.master import write_master
from mpips.checkpoint.write import ServerFile
from mpips.cli.export import export
from mpips.start import plan_of
from mpips.table import TableSpec
from tests.simulated import SMALL, SimulatedJob, libsvm

JOB = """
roles = { servers = 2, data_servers = 1, workers = 2 }
[data]
test = { every = 4, offset = 3 }
batch = 64
%s
[tables.w]
rule = { name = "ftrl", alpha = 0.5 }
%s
[algorithm]
name = "linear"
table = "w"
passes = 3
[checkpoint]
folder = "%s"
"""
SCORE = """
import sys
sys.modules["mpips"] = None  # whoever imports it fails
import csv, json, joblib
from sklearn.metrics import log_loss, roc_auc_score
model = joblib.load("model.joblib")
%s
p = model.predict_proba(x)[:, 1]
print(json.dumps({"auc": roc_auc_score(y, p), "logloss": log_loss(y, p)}))
"""
SCORE_LIBSVM = (
    SCORE
    % """
from sklearn.datasets import load_svmlight_file
x, y = load_svmlight_file("test.libsvm", zero_based=True)
x.resize(x.shape[0], model.n_features_in_)
"""
)
SCORE_CSV = (
    SCORE
    % """
x = list(csv.DictReader(open("test.csv", newline="", encoding="utf-8")))
y = [float(row["late"]) > 15 for row in x]
"""
)
HEADER = ["late", "month", "day", "carrier", "note"]


def train(folder, data, table):
    """Run a job in a folder, and have its model exported there; the figures that it reported."""
    (folder / "job.toml").write_text(JOB % (data, table, folder / "run"))
    plan = replace(plan_of(folder / "job.toml", []), memory=SMALL, threads=1)
    job = SimulatedJob(plan, [0] * 6, 1).run()
    assert job.outcome.exit == "finished", job.outcome.reason
    with Generation(generations(folder / "run")[0]) as generation:
        export(generation, ["w"], folder / "model.joblib")
    return json.loads((folder / "run" / "result.json").read_text())["metrics"]


def score(folder, script):
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def same(found, reported):
    """The AUC that a job reports is of scores in bins: of a few hundred rows, two may be in one."""
    assert found["auc"] == pytest.approx(reported["auc"], abs=1e-4)
    assert found["logloss"] == pytest.approx(reported["logloss"], rel=1e-6)


@pytest.mark.parametrize("table", ['rows = "features"', 'kind = "sparse"\nrows = 100'], ids=["dense", "sparse"])
def test_rows_in_libsvm_format_are_scored_as_the_job_did(tmp_path, table):
    libsvm(tmp_path / "all.libsvm", 1_000, 60, np.random.default_rng(3))
    lines = (tmp_path / "all.libsvm").read_text().splitlines(keepends=True)
    lines[3] = lines[3].rstrip() + " 5000:2.5\n"  # a key that no row to train on has
    (tmp_path / "all.libsvm").write_text("".join(lines))
    (tmp_path / "test.libsvm").write_text("".join(lines[3::4]))
    reported = train(tmp_path, 'format = "libsvm"\nfiles = ["all.libsvm"]', table)
    assert reported["auc"] > 0.7
    same(score(tmp_path, SCORE_LIBSVM), reported)


def a_csv(rng):
    """Rows whose cells need quotes, are empty, and would be the same crosses if simply joined: 1×11 and 11×1."""
    effects = rng.normal(size=(13, 13))
    for _ in range(2_000):
        month, day = rng.choice([1, 11, 2, 12], 2).tolist()
        carrier = str(rng.choice(["UA", "Ünited, Inc.", 'the "best"', ""]))
        late = 15 + 20 * effects[month, day] + 10 * (carrier == "") + rng.normal(scale=10)
        yield [f"{late:.1f}", month, day, carrier, f"note {rng.integers(1_000)}"]


@pytest.mark.parametrize("fields", ['"carrier", ["month", "day"], ["carrier", "day"]', '["month", "day"]', '"carrier"'])
def test_rows_of_a_csv_file_are_scored_as_the_job_did(tmp_path, fields):
    rows = list(a_csv(np.random.default_rng(5)))
    for name, some in (("all.csv", rows), ("test.csv", rows[3::4])):
        text = io.StringIO()
        csv.writer(text).writerows([HEADER, *some])
        (tmp_path / name).write_text(text.getvalue(), encoding="utf-8", newline="")
    data = f'format = "csv"\nfiles = ["all.csv"]\nlabel = "late > 15"\nfeatures = {{ fields = [{fields}] }}'
    reported = train(tmp_path, data, 'rows = "features"')
    assert reported["auc"] > 0.55
    same(score(tmp_path, SCORE_CSV), reported)


def a_generation(folder, job="", keys=(3, 4), **settings):
    spec = TableSpec(**{"name": "w", "kind": "sparse", "rows": 10, **settings})
    file = ServerFile(folder, 1, 1)
    keys = np.array(keys, np.uint64)
    for shard in range(spec.shards):
        mine = keys % spec.shards == shard
        values = np.ones((mine.sum(), spec.width))
        file.sparse(spec, shard, keys[mine], values, np.empty((*values.shape, 0)))
    file.clocks({})
    file.close()
    return write_master(folder, 1, [1], [spec], job, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"job": '[data]\nformat = "csv"'}, "only mpips can make such of rows in csv format; train with"),
        ({"job": '[data]\nformat = "criteo"'}, "only mpips can make such of rows in criteo format; train with"),
        ({"width": 2}, "has 2 values for each key: a linear model has one"),
        ({"keys": (3, 2**40)}, f"has the key {2**40}: a model for scikit-learn has a weight for each key"),
    ],
)
def test_what_nobody_could_score_with_is_not_written(tmp_path, settings, message):
    with Generation(a_generation(tmp_path, **settings)) as generation, pytest.raises(CheckpointError) as error:
        export(generation, ["w"], tmp_path / "model.joblib")
    assert message in str(error.value)
    assert not list(tmp_path.glob("model*"))


def test_without_scikit_learn_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with (
        Generation(a_generation(tmp_path)) as generation,
        pytest.raises(CheckpointError, match=r"pip install 'mpips\[sklearn\]'"),
    ):
        export(generation, ["w"], tmp_path / "model.joblib")
