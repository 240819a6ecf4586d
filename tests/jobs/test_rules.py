"""Update rules from a job's own Python file: good ones train, bad ones are found out."""

from pathlib import Path

import pytest

from tests.jobs.conftest import Start
from tests.jobs.started import SOON, Started

RULES = """
from typing import NamedTuple

import numba
import numpy as np

import mpips


class Heavy(NamedTuple):
    rate: float = 0.02
    decay: float = 0.5


@mpips.update_rule(Heavy, slots=1)
@numba.njit
def heavy(rule, value, update, state):
    state[0] = rule.decay * state[0] + update
    return value - rule.rate * state[0]


class Yield(NamedTuple):
    times: float = 1.0


@mpips.update_rule(Yield)
@numba.njit
def not_a_number(rule, value, update, state):
    return rule.times * np.nan


@mpips.update_rule(Yield)
@numba.njit
def infinite(rule, value, update, state):
    return rule.times * np.inf


@mpips.update_rule(Yield)
@numba.njit
def nonsense(rule, value, update, state):
    return value + "text"
"""


@pytest.fixture(autouse=True)
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.py"
    path.write_text(RULES)
    return path


def test_a_users_rule_trains(run: Start) -> None:
    job: Started = run("python=rules.py", "tables.w.rule={name='heavy'}", "roles.servers=2")
    assert job.end() == 0, job.said
    assert job.result()["metrics"]["auc"] > 0.8
    losses = [event["loss"] for event in job.events("epoch")]
    assert losses[1] < losses[0] < 0.6


@pytest.mark.parametrize(
    ("how", "rule", "kind"), [("mpips run", "not_a_number", "sparse"), ("mpirun", "infinite", "dense")]
)
def test_what_is_not_finite_is_refused_and_reported_by_worker_and_batch(
    run: Start, plain: Start, how: str, rule: str, kind: str
) -> None:
    start = run if how == "mpips run" else plain
    job: Started = start("python=rules.py", f"tables.w={{kind='{kind}', rows=20000, rule={{name='{rule}'}}}}")
    assert job.end(SOON) not in (0, None), job.said
    assert "worker 3, epoch 1, batch " in job.complaint
    assert "NaN or infinite" in job.complaint
    assert job.result()["exit"] == "failed"


def test_a_rule_that_numba_does_not_compile_is_said(run: Start) -> None:
    job: Started = run("python=rules.py", "tables.w.rule={name='nonsense'}")
    assert job.end(SOON) == 1, job.said
    assert "nonsense" in job.complaint, job.said


def test_a_python_file_with_a_mistake_is_said_with_its_line(run: Start, rules: Path) -> None:
    rules.write_text("import mpips\n\ndef heavy(:\n")
    job: Started = run("python=rules.py", "tables.w.rule={name='heavy'}")
    assert job.end(SOON) == 1, job.said
    assert f"{rules}:3: SyntaxError" in job.complaint
