"""A real job in which one group of workers trains while others do something else with the live model."""

from pathlib import Path

from tests.jobs.conftest import ROWS, TRAIN_ROWS, Start
from tests.jobs.started import Started, mpips_run

PROGRAMS = """
import time

import mpips


@mpips.function
def shrink(worker, factor):
    '''A subtask: done when the servers have done it.'''
    return worker.table("u").call("scale", argument=[factor])


@mpips.program
def tend(worker):
    '''Leave a mark in a table of its own, have a function called, and read the live model until the job is over.'''
    u, w = worker.table("u"), worker.table("w")
    u.push([3, 999], [8.0, 16.0]).wait()
    worker.call("tenders", "shrink", 0.5).wait()
    worker.report(mark=float(u.pull([3]).wait()[0]), of=float(worker.count))
    while True:
        worker.report(live=float(w.nonzeros()))
        worker.idle(lambda until=time.monotonic() + 0.05: time.monotonic() > until)
"""
WATCH = "groups.watch={workers=1, program='watch'}"
TEND = "groups.tenders={workers=1, program='tend'}", "tables.u={rows=1000}", "python=programs.py"
PASSES = 30


def test_a_group_watches_the_live_model_and_another_runs_a_program_while_a_third_trains_it(
    run: Start, tmp_path: Path
) -> None:
    (tmp_path / "programs.py").write_text(PROGRAMS)
    job: Started = run(WATCH, *TEND, f"algorithm.passes={PASSES}", "roles.workers=2", "fabric.separate_nodes=true")
    assert job.end() == 0, job.said
    result, rounds = job.result(), job.events("live evaluation")
    assert result["exit"] == "finished"
    assert result["examples"] == PASSES * TRAIN_ROWS  # what is watched is not trained on
    assert [event["round"] for event in rounds] == list(range(1, len(rounds) + 1))
    assert len(rounds) >= 3
    assert {(event["group"], event["rows"]) for event in rounds} == {("watch", ROWS - TRAIN_ROWS)}
    assert rounds[-1]["auc"] > 0.8
    assert abs(rounds[-1]["auc"] - result["metrics"]["auc"]) < 0.05
    assert [rank["role"] for rank in job.ranks()].count("worker") == 4
    metrics = result["metrics"]
    assert metrics["mark"] == 4.0
    assert metrics["of"] == 1.0
    assert metrics["auc"] > 0.8
    live = [event["live"] for event in job.events("report") if "live" in event]
    assert len(live) >= 2
    assert live[-1] > 0


def test_a_program_that_nobody_registered_is_said_with_the_nearest_name(
    start: Start, job_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "programs.py").write_text(PROGRAMS)
    job: Started = start(mpips_run(job_file, "--set", "python=programs.py", "--set", "groups.a={program='tendd'}"))
    assert job.end(20) == 1, job.said
    assert 'groups.a.program: there is no program "tendd"; did you mean "tend"?' in job.complaint
    assert not (tmp_path / "run").exists()
