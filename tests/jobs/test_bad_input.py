"""Mistakes in the job file and in the data: one clear message, soon, and an exit code that is not 0."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs.conftest import ROWS, TRAIN_ROWS, Start
from tests.jobs.started import SOON, Started


def refused(job: Started) -> str:
    """The one message of a job that must have failed within seconds."""
    assert job.end(SOON) not in (0, None), job.said
    assert not list(job.run.glob("generation-*.h5")), job.said
    return job.complaint


def test_every_mistake_in_a_job_file_is_said_at_once(either: Start, job_file: Path) -> None:
    text = job_file.read_text()
    job_file.write_text(text.replace("kind", "knid").replace("passes = 2", "passes = 0").replace('"ftrl"', '"ftlr"'))
    message = refused(either())
    assert 'tables.w.knid: unknown key; did you mean "kind"?' in message
    assert "algorithm.passes: must be a whole number ≥ 1, got 0" in message
    assert '"ftlr" does not exist; did you mean "ftrl"?' in message
    assert message.count(f"{job_file}:") == 3


def test_more_roles_than_ranks(run: Start, plain: Start) -> None:
    for job in (run("roles.workers=4", "--ranks=4"), plain("roles.workers=4", ranks=4)):
        assert "the roles need 7 ranks" in refused(job)
        assert "the job has 4" in job.complaint


def test_files_that_can_not_be_read_are_all_said(either: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "folder").mkdir()
    message = refused(either("data.files=['empty', 'folder', 'nothing-*']"))
    assert "empty: is empty" in message
    assert 'folder: is a folder; to read all files in it write "folder/*"' in message
    assert 'no file matches "nothing-*"' in message


def truncated(folder: Path) -> str:
    whole = gzip.compress(b"".join(b"1 %d:1 %d:0.5\n" % (i, i + 7) for i in range(20_000)))
    (folder / "bad.gz").write_bytes(whole[: len(whole) // 2])
    return "bad.gz"


def other_format(folder: Path) -> str:
    (folder / "bad").write_text("carrier,hour,delay\nUA,5,11\n")
    return "bad: line 1"


def not_a_number(folder: Path) -> str:
    (folder / "bad").write_text("1 3:1 7:1\n0 4:nan\n")
    return "bad: line 2"


@pytest.mark.parametrize(
    ("how", "make"), [("mpips run", truncated), ("mpirun", other_format), ("mpips run", not_a_number)]
)
def test_bad_data_are_refused_with_file_and_place(
    run: Start, plain: Start, tmp_path: Path, how: str, make: Callable[[Path], str]
) -> None:
    start = run if how == "mpips run" else plain
    expected = make(tmp_path)
    name = "bad.gz" if expected.startswith("bad.gz") else "bad"
    assert expected in refused(start(f"data.files=['{tmp_path / name}']"))


def test_key_out_of_range_names_worker_batch_and_key(plain: Start) -> None:
    job = plain("tables.w={kind='dense', rows=1000, rule={name='sgd'}}")
    assert job.end(SOON) not in (0, None), job.said
    message = job.complaint
    assert "worker 3" in message
    assert "batch" in message
    assert "is out of range [0, 1000)" in message


def test_malformed_lines_are_counted_and_left_out_when_the_job_says_so(run: Start, tmp_path: Path, data: Path) -> None:
    text = data.read_text().splitlines(keepends=True)
    text[10], text[4001] = "1 3:1 3:x\n", "not a row\n"
    (tmp_path / "some").write_text("".join(text))
    job = run("data.files=['some']", "data.malformed=skip")
    assert job.end() == 0, job.said
    result = job.result()
    assert result["metrics"]["auc"] > 0.8
    rows = result["examples"] // 2 + job.events("evaluation")[0]["rows"]
    assert rows == ROWS - 2
    assert abs(result["examples"] // 2 - TRAIN_ROWS) <= 2
    assert "2 malformed lines skipped" in job.notes()
