"""Programs that call `mpips.run` themselves, under a plain mpirun."""

import json
from pathlib import Path

import pytest

from mpips.cli.launch import Launcher
from tests.jobs.conftest import Start
from tests.jobs.started import QUICK, SOON, Started, mpirun

PROGRAM = """
import json, sys
import numpy as np
import mpips

def program(worker):
    counts, means = worker.table("counts"), worker.table("means")
    for _ in range(5):
        counts.push([3, 2**60], [1.0, 2.0]).wait()
    means.push(range(0, 1000), np.full((1000, 2), 1.0)).wait()
    worker.idle(lambda: counts.pull([3]).wait()[0] == 5 * worker.count, "the others' pushes", timeout=20)
    worker.idle(lambda: means.pull([999]).wait()[0, 1] == worker.count, "the others' pushes", timeout=20)
    return {"index": worker.index, "sum": float(means.pull(range(0, 1000)).wait().sum()),
            "counts": counts.pull([2, 3, 2**60]).wait().tolist()}

tables = [mpips.TableSpec(name="counts", kind="sparse", rows=10, dtype="float64"),
          mpips.TableSpec(name="means", rows=1000, width=2)]
results = mpips.run(program, tables=tables, roles=mpips.Roles(workers=2), memory=MEMORY, OPTIONS)
if results is not None:
    json.dump(results, open("results.json", "w"))
"""
MEMORY = "mpips.Memory(server=32 << 20, worker=8 << 20)"


@pytest.mark.every_mpi
@pytest.mark.parametrize(
    ("ranks", "given"), [(4, "run='run'"), (5, "separate_nodes=True, delay=0")], ids=["one node", "nodes of their own"]
)
def test_a_program_runs_on_every_worker_and_rank_0_has_the_results(
    start: Start, launcher: Launcher, tmp_path: Path, ranks: int, given: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM.replace("MEMORY", MEMORY).replace("OPTIONS", given))
    job: Started = start(mpirun(launcher, ranks, script, options=QUICK))
    assert job.end() == 0, job.said
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == [
        {"index": 0, "sum": 4000.0, "counts": [0.0, 10.0, 20.0]},
        {"index": 1, "sum": 4000.0, "counts": [0.0, 10.0, 20.0]},
    ]
    assert "mpips:" not in job.errors
    assert (tmp_path / "run" / "generation-000001.h5").exists() == ("run=" in given)


FAILURES = {
    "raise ValueError('too hot')": "ValueError at {script}:5: too hot",
    "worker.table('w').push([5, 10], [1.0, 2.0])": "key 10 is out of range [0, 10)",
    "return object()": "object",
    "import sys; sys.exit(3)": "SystemExit",
}


@pytest.mark.parametrize("line", FAILURES)
def test_a_program_that_fails_on_one_worker_ends_the_job_and_says_why(
    start: Start, launcher: Launcher, tmp_path: Path, line: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import mpips\n"
        "def program(worker):\n"
        "    if worker.index == 0:\n"
        "        worker.idle(lambda: False)\n"
        f"    {line}\n"
        f"mpips.run(program, [mpips.TableSpec(name='w', rows=10)], roles=mpips.Roles(workers=2), memory={MEMORY})\n"
    )
    job: Started = start(mpirun(launcher, 4, script, options=QUICK))
    assert job.end(SOON) not in (0, None), job.said
    said = [text for text in job.errors.splitlines() if text.startswith("mpips:")]
    assert len(said) == 1, job.said
    assert FAILURES[line].format(script=script) in said[0]
    assert "worker 3" in said[0] or "rank 3" in said[0] or "table" in said[0]
