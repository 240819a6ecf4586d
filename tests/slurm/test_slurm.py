"""Jobs in the queue of a real Slurm: trained, cancelled, stopped by their time limit, robbed of a node."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mpips.checkpoint import Generation, generations
from tests.slurm.conftest import Cluster, Queued

Submit = Callable[..., Queued]
FLIGHTS = Path(__file__).parent.parent.parent / "inputs/flights-lr.toml"
SWEEP = FLIGHTS.parent.parent / "slurm/sweep.sbatch"
FOREVER = "algorithm.passes=1000000"

pytestmark = pytest.mark.timeout(240)


def test_a_job_is_trained_on_two_nodes(submit: Submit) -> None:
    job = submit("train.sbatch", FLIGHTS, "algorithm.passes=1")
    job.until(lambda: job.state == "COMPLETED", "its end")
    result = json.loads((job.run / "result.json").read_text())
    assert result["exit"] == "finished"
    assert result["metrics"]["auc"] > 0.77
    assert not job.processes()


def test_a_cancelled_job_leaves_a_generation_and_nothing_else(submit: Submit, cluster: Cluster) -> None:
    job = submit("train.sbatch", FLIGHTS, FOREVER, "checkpoint.every=0.5")
    job.until(lambda: job.events("checkpoint"), "a checkpoint")
    cluster.say("scancel", job.number)
    job.until(lambda: job.state == "CANCELLED" and not job.processes(), "the end of its processes", 30.0)
    with Generation(generations(job.run)[0]) as generation:
        generation.verify(deep=True)


def test_a_job_goes_on_when_its_time_is_over_and_when_a_node_is_taken_away(submit: Submit, cluster: Cluster) -> None:
    job = submit("resume.sbatch", FLIGHTS, FOREVER, "checkpoint.every=1")
    job.until(lambda: job.events("epoch"), "training")
    cluster.say("scancel", "--batch", "--signal=USR1", job.number)  # what --signal=B:USR1 has Slurm send
    job.until(lambda: "queued again" in job.said, "the requeue")
    assert "SIGTERM: stopping with a checkpoint" in job.said
    job.until(lambda: job.said.count("resumed from") == 1 and job.events("epoch"), "training again")

    before = len(generations(job.run))
    assert before > 0
    cluster.say("scontrol", "update", "nodename=n2", "state=down", "reason=test")  # comes back when it reports
    job.until(lambda: job.said.count("resumed from") == 2 and job.events("epoch"), "training after the loss of a node")


def test_a_sweep_ends_with_one_table_and_one_picture(cluster: Cluster, tmp_path: Path) -> None:
    alphas = ["0.05", "0.2"]
    options = ("--parsable", "--array=0-1", "--ntasks=4", f"--output={tmp_path}/%a.out", f"--chdir={tmp_path}")
    after = ("--", "--set", "algorithm.passes=1")
    number = cluster.say("sbatch", *options, str(SWEEP), str(FLIGHTS), "tables.w.rule.alpha", *alphas, *after)
    try:
        deadline = time.monotonic() + 90
        while cluster.say("squeue", "-h", "-j", number):
            assert time.monotonic() < deadline, [path.read_text() for path in tmp_path.glob("*.out")]
            time.sleep(0.2)
    finally:
        cluster.say("scancel", "--quiet", number)
    folder = tmp_path / f"checkpoints/flights-lr-sweep-{number}"
    table = (folder / "table.txt").read_text()
    for alpha in alphas:
        assert f"tables.w.rule.alpha={alpha}" in table, table
    assert table.count("finished") == len(alphas)
    assert (folder / "plot.png").stat().st_size > 10_000
