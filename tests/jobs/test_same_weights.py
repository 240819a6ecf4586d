"""One worker and no delay: the weights do not depend on who holds them, nor on the way they are reached."""

from pathlib import Path

import numpy as np
import pytest

from mpips.checkpoint import Generation, generations
from tests.jobs.conftest import LARGEST_KEY, ROWS, TRAIN_ROWS, Start

DENSE = f"tables.w={{kind='dense', rows={LARGEST_KEY}, rule={{name='ftrl', alpha=0.1, l1=0.1}}}}"
FAR = "fabric.separate_nodes=true"


def weights_of(run: Path) -> dict[int, tuple[float, ...]]:
    """Value and update state of every key that was pushed."""
    rows: dict[int, tuple[float, ...]] = {}
    with Generation(generations(run)[0]) as generation:
        if generation.tables["w"].kind == "dense":
            values, state = generation.dense("w", 0, generation.rows("w"))
            blocks = [(np.arange(len(values)), values, state)]
        else:
            blocks = list(generation.sparse("w"))
        for keys, values, state in blocks:
            pushed = np.any(state != 0, axis=(1, 2))
            for key, value, extra in zip(keys[pushed], values[pushed], state[pushed], strict=True):
                rows[int(key)] = (*value.tolist(), *extra.reshape(-1).tolist())
    return rows


@pytest.fixture(scope="module")
def reference() -> dict[int, tuple[float, ...]]:
    """The weights of the first job, which the others must have too."""
    return {}


@pytest.mark.parametrize(
    "changes",
    [
        ("roles.servers=1",),
        ("roles.servers=3", DENSE, "roles.data_servers=0"),
        ("roles.servers=2", DENSE, FAR),
        ("roles.servers=3", FAR),
    ],
    ids=" ".join,
)
def test_the_weights_are_the_same_to_the_last_bit(
    run: Start, reference: dict[int, tuple[float, ...]], changes: tuple[str, ...]
) -> None:
    job = run(*changes)
    assert job.end() == 0, job.said
    assert job.result()["examples"] == 2 * TRAIN_ROWS
    assert [event["rows"] for event in job.events("evaluation")] == [ROWS - TRAIN_ROWS]
    weights = weights_of(job.run)
    assert len(weights) > 250
    reference = reference or weights
    assert weights == reference
