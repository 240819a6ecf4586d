"""The batch solver's job on the New York flights: it arrives at the optimum of the L1 problem."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mpips.cli.launch import Launcher
from tests.jobs.conftest import Start
from tests.jobs.started import Started, mpips_run, mpirun

JOB = Path(__file__).parents[2] / "inputs" / "flights-l1.toml"
TRAIN_ROWS = 261_877
OPTIMUM = 0.397348  # of liblinear, run until it no longer moved
NONZEROS = 19_332
FILTERS = ["kkt", "quantise", "significance", "key_cache", "compression"]
pytestmark = pytest.mark.timeout(180)


def arguments(flights_cache: str, *changes: str) -> list[str]:
    values = [flights_cache, "checkpoint.folder=run", *changes]
    return [str(JOB), *(word for value in values for word in ("--set", value))]


def arrived(job: Started) -> None:
    """Whether it is at the optimum, and says so in its result as in its log."""
    metrics = job.result()["metrics"]
    assert metrics["objective"] == pytest.approx(OPTIMUM, rel=5e-4)
    assert metrics["objective"] > OPTIMUM * (1 - 1e-5)
    assert metrics["auc"] >= 0.793
    assert metrics["nonzeros"] == pytest.approx(NONZEROS, rel=0.05)
    reports = job.events("report")
    assert [report["pass"] for report in reports] == list(range(1, len(reports) + 1))
    assert reports[-1]["objective"] == metrics["objective"]
    assert reports[0]["objective"] > 1.01 * metrics["objective"]
    assert job.result()["examples"] == len(reports) * TRAIN_ROWS


def test_the_job_arrives_at_the_optimum_and_leaves_its_model(start: Start, flights_cache: str) -> None:
    job: Started = start(mpips_run(*arguments(flights_cache)))
    assert job.end(120) == 0, job.said
    arrived(job)
    result = job.result()
    assert result["exit"] == "finished"
    assert result["idle"].keys() == {"3", "4"}
    assert all(0 <= share < 1 for share in result["idle"].values())
    assert result["traffic"]["workers"] == result["traffic"]["servers"] == {"raw": 0, "sent": 0}  # one node
    with h5py.File(job.run / "generation-000001.h5") as file:
        assert np.count_nonzero(file["tables/w/values"][:]) == result["metrics"]["nonzeros"]
    assert f"{result['metrics']['objective']:.4f}" in job.output
    assert job.errors == ""


def test_it_arrives_there_between_nodes_through_filters_that_each_say_what_they_saved(
    start: Start, launcher: Launcher, flights_cache: str
) -> None:
    """Those that change values do it in the fourth digit, or not at all; the rest leave them as they are."""
    push = "[{name='kkt', tolerance=0.03}, {name='quantise'}, {name='key_cache'}, {name='compression'}]"
    pull = "[{name='significance'}, {name='key_cache'}, {name='compression'}]"
    changes = ["fabric.separate_nodes=true", "roles={servers=2, data_servers=1, workers=2}"]
    filters = [f"tables.w.push_filters={push}", f"tables.w.pull_filters={pull}"]
    job: Started = start(mpirun(launcher, 6, "-m", "mpips", *arguments(flights_cache, *changes, *filters)))
    assert job.end(150) == 0, job.said
    arrived(job)
    traffic = job.result()["traffic"]
    assert traffic["filters"].keys() == set(FILTERS)
    assert all(saved > 0 for saved in traffic["filters"].values())
    for side in ("workers", "servers"):
        assert 0 < traffic[side]["sent"] < traffic[side]["raw"]
    both = {name: traffic["workers"][name] + traffic["servers"][name] for name in ("raw", "sent")}
    assert both["raw"] - both["sent"] == sum(traffic["filters"].values())
    progress = job.events("progress")[-1]
    assert progress["sent"]["workers"] > 0
