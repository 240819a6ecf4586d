"""The main job, sparse logistic regression on the New York flights, started in every way."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpips.cli.launch import Launcher
from tests.jobs.conftest import Start
from tests.jobs.started import Started, mpips_run, mpirun

JOB = Path(__file__).parents[2] / "inputs" / "flights-lr.toml"
TRAIN_ROWS, TEST_ROWS = 261_877, 65_469
FEATURES = 45_518
AFTER_2_PASSES = 0.793
NOISE = 0.002
pytestmark = pytest.mark.timeout(180)


def arguments(flights_cache: str, *changes: str) -> list[str]:
    values = [flights_cache, "checkpoint.folder=run", *changes]
    return [str(JOB), *(word for value in values for word in ("--set", value))]


def test_the_main_job_learns_and_leaves_a_whole_run_folder(start: Start, flights_cache: str, tmp_path: Path) -> None:
    job: Started = start(mpips_run(*arguments(flights_cache)))
    job.until(lambda: (job.run / "ranks.json").exists() and len(job.ranks()) == 5, "all ranks")
    assert [rank["role"] for rank in job.ranks()] == ["scheduler", "server", "data server", "worker", "worker"]
    assert {rank["pid"] for rank in job.ranks()} <= set(job.processes())
    assert job.end(120) == 0, job.said

    result = job.result()
    assert result["exit"] == "finished"
    assert result["metrics"]["auc"] >= 0.792
    assert result["metrics"]["logloss"] <= 0.4365
    assert result["examples"] == 5 * TRAIN_ROWS
    assert result["examples_per_second"] > 0
    assert result["seconds"] >= result["training_seconds"] > 0
    assert result["roles"] == {"scheduler": 1, "servers": 1, "data_servers": 1, "workers": 2, "spares": 0}
    assert {"mpips", "numpy", "mpi", "python"} <= result["versions"].keys()
    assert f"{result['metrics']['auc']:.4f}" in job.output
    assert job.errors == ""

    assert [event["event"] for event in job.events()][:1] == ["start"]
    assert [event["event"] for event in job.events()][-1:] == ["end"]
    assert all(event["time"] > 1.6e9 for event in job.events())
    assert sorted(event["epoch"] for event in job.events("epoch")) == [1, 2, 3, 4, 5]
    evaluations = job.events("evaluation")
    assert [event["epoch"] for event in evaluations] == [1, 2, 3, 4, 5]
    assert {event["rows"] for event in evaluations} == {TEST_ROWS}
    assert all(0 <= load <= 1.05 for event in job.events("progress") for load in event["servers"].values())

    with h5py.File(job.run / "generation-000001.h5") as file:
        weights = file["tables/w/values"]
        assert weights.is_virtual
        assert weights.shape == (FEATURES, 1)
        assert np.count_nonzero(weights[:]) == result["metrics"]["nonzeros"]
        names = file["names"].asstr()[:]
        assert np.all(np.isfinite(file["tables/w/state"][:]))
        largest = int(np.argmax(np.abs(weights[:, 0])))
        assert names.size == FEATURES == np.unique(names).size
        assert "carrier=UA" in names
        assert "carrier×flight=UA×1545" in names
    shown = subprocess.run(
        [sys.executable, "-c", "from mpips.cli import main; main()", "inspect", "run"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert f"{FEATURES:,} × 1" in shown.stdout
    assert names[largest] in shown.stdout
    assert "ftrl" in shown.stdout


@pytest.mark.parametrize(
    ("ranks", "changes"),
    [
        (6, []),
        (3, ["roles={data_servers=0}"]),
        (7, ["roles={servers=2, data_servers=2, workers=2}", "fabric.separate_nodes=true"]),
    ],
    ids=["with a spare", "without data servers", "each rank its own node"],
)
def test_it_learns_the_same_under_a_plain_mpirun(
    start: Start, launcher: Launcher, flights_cache: str, ranks: int, changes: list[str]
) -> None:
    program = ["-m", "mpips", *arguments(flights_cache, "algorithm.passes=2", *changes)]
    job: Started = start(mpirun(launcher, ranks, *program))
    assert job.end(120) == 0, job.said
    result = job.result()
    assert sum(result["roles"].values()) == ranks
    assert result["metrics"]["auc"] == pytest.approx(AFTER_2_PASSES, abs=NOISE)
    assert result["examples"] == 2 * TRAIN_ROWS
    assert [event["rows"] for event in job.events("evaluation")] == [TEST_ROWS, TEST_ROWS]
    assert len(job.ranks()) == ranks
    assert "mpips:" not in job.said
