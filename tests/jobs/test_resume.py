"""Jobs that are interrupted and go on, also with other ranks, and checkpoints that are damaged."""

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpips.checkpoint import Generation, generations
from mpips.checkpoint.folder import number
from tests.jobs.conftest import FOREVER, TRAIN_ROWS, Start
from tests.jobs.started import SOON, Started


def newest(run: Path) -> dict[str, Any]:
    """How far the newest checkpoint is."""
    with Generation(generations(run)[0]) as generation:
        generation.verify(deep=True)
        return generation.progress


@pytest.mark.parametrize(
    ("number", "code", "others"),
    [
        (signal.SIGINT, 130, ("roles.servers=3", "roles.workers=2")),
        (signal.SIGTERM, 143, ("roles.data_servers=0", "roles.servers=2", "fabric.separate_nodes=true")),
    ],
)
def test_interrupted_job_goes_on_where_it_was_with_other_ranks(
    run: Start, number: signal.Signals, code: int, others: tuple[str, ...]
) -> None:
    first: Started = run(FOREVER, "roles.workers=2", "data.batch=50")
    first.until_training(3)
    first.process.send_signal(number)
    assert first.end(20) == code, first.said
    result = first.result()
    assert result["exit"] == "interrupted"
    assert number.name in first.output
    assert "Traceback" not in first.said
    progress = newest(first.run)
    assert progress["examples"] == result["examples"] >= 3 * TRAIN_ROWS

    passes = progress["epochs"] + 3
    second: Started = run(f"algorithm.passes={passes}", "--resume", "data.batch=50", *others)
    assert second.end() == 0, second.said
    assert "resumed from" in second.notes()
    assert result["examples"] + second.result()["examples"] == passes * TRAIN_ROWS
    assert second.result()["metrics"]["auc"] > 0.85


@pytest.mark.every_mpi
def test_signal_to_a_plain_mpirun_ends_the_job_with_a_checkpoint(plain: Start) -> None:
    job: Started = plain(FOREVER)
    job.until_training(2)
    job.process.send_signal(signal.SIGTERM)
    assert job.end(20) != 0, job.said
    assert job.result()["exit"] == "interrupted"
    assert newest(job.run)["examples"] >= 2 * TRAIN_ROWS


def test_a_job_of_which_everything_is_killed_goes_on_from_its_newest_generation(run: Start, seed: int) -> None:
    """As by a power cut: `mpips run`, its keeper, mpirun and all ranks, at any moment."""
    choose = random.Random(seed)
    before = 0
    for servers in (2, 1):
        job: Started = run(FOREVER, "checkpoint.every=0.05", f"roles.servers={servers}", "--resume-or-start")
        job.until(lambda job=job: len(job.events("checkpoint")) > 1, "generations")
        moment = time.monotonic() + choose.uniform(0.0, 0.3)
        job.until(lambda moment=moment: time.monotonic() > moment, "a random moment")
        job.kill()
        assert [event["generation"] for event in job.events("restored")] == [before] * (before > 0)
        said = max(event["generation"] for event in job.events("checkpoint"))
        newest(job.run)
        before = number(generations(job.run)[0])
        assert before >= said
        (job.run / "metrics.jsonl").unlink()  # else what it says would be taken for what the next one says
    last: Started = run(f"algorithm.passes={newest(job.run)['epochs'] + 3}", "--resume")
    assert last.end() == 0, last.said
    assert [event["generation"] for event in last.events("restored")] == [before]
    assert last.result()["metrics"]["auc"] > 0.85


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run folder that was filled once with two generations; tests damage copies of it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def generations_of_two(trained: Path, run: Start, tmp_path: Path) -> list[Path]:
    """A copy of that folder at the job's own, its masters newest first."""
    if not trained.exists():
        for more in (("algorithm.passes=5",), ("algorithm.passes=60", "--resume")):  # the second changes all shards
            job: Started = run(*more, "checkpoint.every=0", "roles.servers=2")
            assert job.end() == 0, job.said
        assert len(generations(job.run)) == 2, job.said
        shutil.copytree(job.run, trained)
        shutil.rmtree(job.run)
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    return generations(copy)


def servers_of(master: Path) -> list[Path]:
    return sorted(master.with_suffix("").glob("*.h5"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def truncate_a_server_file(master: Path) -> str:
    path = servers_of(master)[1]
    truncate(path)
    return f"{path}: truncated"


def damage_values(master: Path) -> str:
    """Flip what is seen only when the values are read."""
    path = servers_of(master)[0]
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(255 - byte for byte in content[middle : middle + 2000])
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("damage", [truncate_a_server_file, damage_values])
def test_the_generation_before_foreign_and_damaged_ones_is_used_and_said(
    run: Start, generations_of_two: list[Path], damage: Callable[[Path], str]
) -> None:
    newest_one, whole = generations_of_two
    foreign = whole.with_name("generation-000999.h5")
    foreign.write_text("I am not a checkpoint")
    damaged = damage(newest_one)
    job: Started = run("algorithm.passes=62", "--resume", "roles.servers=3")
    assert job.end() == 0, job.said
    for said in (job.notes(), job.output):
        assert str(foreign) in said
        assert damaged in said
        assert f"resumed from {whole}" in said
    newest(job.run)


def break_all(masters: list[Path]) -> None:
    for master in masters:
        truncate(master)


def remove_all(masters: list[Path]) -> None:
    for master in masters:
        master.unlink()


@pytest.mark.parametrize(
    ("how", "damage", "changes", "reason"),
    [
        ("mpips run", remove_all, (), "nothing to resume"),
        ("mpirun", break_all, (), "none of its generations can be read"),
        ("mpips run", None, ("tables.w.width=2",), "does not have the shape"),
    ],
)
def test_nothing_fit_to_resume_is_one_clear_error(
    run: Start,
    plain: Start,
    generations_of_two: list[Path],
    how: str,
    damage: Callable[[list[Path]], None] | None,
    changes: tuple[str, ...],
    reason: str,
) -> None:
    if damage is not None:
        damage(generations_of_two)
    before = sorted(path.name for path in generations_of_two[0].parent.rglob("*.h5"))
    start = run if how == "mpips run" else plain
    job: Started = start("--resume", "roles.servers=1", *changes)
    assert job.end(SOON) not in (0, None), job.said
    assert reason in job.complaint
    assert sorted(path.name for path in generations_of_two[0].parent.rglob("*.h5")) == before
