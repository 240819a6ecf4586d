"""A network trained by real ranks: images from the data server, threads in the workers, all that a run leaves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpips.checkpoint import Generation, generations
from tests.images import write_shapes
from tests.jobs.conftest import Start
from tests.jobs.started import Started, mpips_run
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


def test_it_learns_with_threads_and_workers_that_go_ahead(network: Callable[..., Started]) -> None:
    of_network = ("threads=2", "step=10", "momentum=0.5", "schedule=cosine")
    changes = ["algorithm.passes=20", *(f"algorithm.neural.{change}" for change in of_network)]
    job = network(*changes, "roles.workers=2", "roles.servers=2", "roles.data_servers=1")
    assert job.end() == 0, job.said
    metrics = job.result()["metrics"]
    assert metrics["accuracy"] > 0.85
    assert np.sum(metrics["confusion"]) == 90
    with Generation(generations(job.run)[0]) as generation:
        weights = generation.dense("convolution1", 0, 4)[0]
    assert np.isfinite(weights).all()
    assert (np.abs(weights).max(axis=1) > 0.05).all()
