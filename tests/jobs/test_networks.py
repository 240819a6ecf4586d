"""A network trained by real ranks: images from the data server, threads in the workers, all that a run leaves."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpips.checkpoint import Generation, generations
from mpips.start import plan_of
from tests.images import write_shapes
from tests.jobs.conftest import Start
from tests.jobs.started import Started, mpips_run
from tests.simulated import SimulatedJob
from tests.test_job_networks import GOOD

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def network(tmp_path: Path, start: Start) -> Callable[..., Started]:
    """Start a job on the test shapes, with values set."""
    write_shapes(tmp_path)
    path = tmp_path / "network.toml"
    path.write_text(GOOD + '\n[checkpoint]\nfolder = "run"\n')

    def begin(*changes: str) -> Started:
        return start(mpips_run(path, *(part for change in changes for part in ("--set", change))), None)

    return begin


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    """What the newest generation has of every layer."""
    with Generation(generations(folder)[0]) as generation:
        return {name: generation.dense(name, 0, table.rows)[0] for name, table in generation.tables.items()}


@pytest.mark.parametrize("partitions", [1, 2])
def test_ranks_learn_what_simulated_ones_do(network: Callable[..., Started], tmp_path: Path, partitions: int) -> None:
    roles = ("roles.servers=2", "roles.data_servers=1", f"roles.workers={partitions}")
    changes = (
        *roles,
        f"algorithm.neural.partitions={partitions}",
        "algorithm.neural.in_flight=1",
        "algorithm.neural.threads=1",
        "algorithm.neural.step=5",
        "consistency.delay=0",
        "data.images.turn=9",
    )
    job = network(*changes)
    assert job.end() == 0, job.said
    plan = plan_of(tmp_path / "network.toml", changes)
    simulated = tmp_path / "simulated"
    assert SimulatedJob(replace(plan, run=simulated), [0] * (4 + partitions), 1).run().outcome.exit == "finished"
    expected = json.loads((simulated / "result.json").read_text())["metrics"]
    assert job.result()["metrics"]["logloss"] == pytest.approx(expected["logloss"], rel=1e-3)
    ours, theirs = weights_of(job.run), weights_of(simulated)
    assert sorted(ours) == ["connected1", "connected2", "convolution1"]
    for name, weights in ours.items():
        np.testing.assert_allclose(weights, theirs[name], atol=1e-3)


def test_workers_with_several_threads_change_what_they_share(network: Callable[..., Started]) -> None:
    roles = ("roles.servers=2", "roles.data_servers=1", "roles.workers=2")
    job = network(*roles, "algorithm.neural.threads=2", "algorithm.neural.step=5", "algorithm.neural.rate=0.02")
    assert job.end() == 0, job.said
    assert np.sum(job.result()["metrics"]["confusion"]) == 90
    for weights in weights_of(job.run).values():
        assert np.isfinite(weights).all()
        assert (weights[:, -1] != 0).any()  # biases, which begin as 0
