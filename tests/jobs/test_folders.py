"""Run folders that can't be written, and disks that are full: for the whole run, or for a while."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mpips.checkpoint import Generation, generations
from tests.jobs.conftest import LARGEST_KEY, Start, small_disk
from tests.jobs.started import SOON, Started

DISK = 4 << 20
PASSES = 50
LARGE = f"tables.w={{kind='dense', rows={50 * LARGEST_KEY}, rule={{name='ftrl', alpha=0.1}}}}"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MB."""
    with small_disk(tmp_path / "disk", DISK) as path:
        yield path


def test_a_run_folder_that_can_not_be_made_is_said(either: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    job: Started = either("checkpoint.folder=file/run", folder=tmp_path / "file" / "run")
    assert job.end(SOON) not in (0, None), job.said
    assert f"{tmp_path}/file/run" in job.complaint
    assert "Not a directory" in job.complaint


def test_a_disk_that_stays_full_fails_the_job_after_all_its_work(either: Start, disk: Path) -> None:
    job: Started = either(LARGE, f"checkpoint.folder={disk}/run", "checkpoint.every=0.2", folder=disk / "run")
    assert job.end(30) not in (0, None), job.said
    message = job.complaint
    assert "the last checkpoint was not written" in message
    assert "No space left on device" in message
    result = job.result()
    assert result["exit"] == "failed"
    assert result["metrics"]["auc"] > 0.8
    assert job.events("checkpoint failed")
    assert not generations(job.run)


def test_a_disk_that_is_full_for_a_while_does_no_harm(run: Start, disk: Path) -> None:
    filler = disk / "filler"
    filler.write_bytes(bytes(DISK - (64 << 10)))
    changes = [f"algorithm.passes={PASSES}", "checkpoint.every=0.2", "tables.w.rows=100_000"]
    job: Started = run(*changes, f"checkpoint.folder={disk}/run", folder=disk / "run")
    job.until(lambda: job.events("checkpoint failed"), "a checkpoint that fails")
    filler.unlink()
    assert job.end() == 0, job.said
    assert "No space left on device" in job.output
    assert job.result()["exit"] == "finished"
    assert job.events("checkpoint")
    assert len(job.events("epoch")) == PASSES
    with Generation(generations(job.run)[0]) as generation:
        generation.verify(deep=True)
        assert generation.rows("w") > 250
