"""Files of a checkpoint that were damaged: they are named, and the job goes on from the newest generation that is
whole, though generations share files.
"""

import contextlib
import json
import shutil

import numpy as np
import pytest

from mpips.checkpoint import CheckpointError, Generation, generations
from mpips.checkpoint.folder import number
from mpips.checkpoint.layout import server_path
from mpips.plan import Roles
from tests.simulated import PLACES, SimulatedJob, program_plan, rest, table

ROWS, TURNS = 40_000, 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with generations that share files."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpips.server.written.TURNS", TURNS)
        job(folder, pushes, servers=3).run()
    assert len(generations(folder)) == 4
    return folder


def job(run, program, servers, resume=False):
    plan = program_plan(
        program,
        table(kind="dense", rows=ROWS),
        table("s", kind="sparse", rows=ROWS, rule={"name": "adagrad", "alpha": 0.5}),
        roles=Roles(servers=servers, workers=1, spares=0),
        run=run,
        saves=True,
        save_every=0.02,
        replicas=0,
    )
    return SimulatedJob(plan, PLACES["one node"](servers + 2), 1, resume=resume)


def pushes(worker):
    rng = np.random.default_rng(1)
    for _ in range(60):
        for name in ("w", "s"):
            keys = np.unique(rng.integers(0, ROWS, 2)).astype(np.uint64)
            worker.table(name).push(keys, np.ones(keys.size)).wait()
        rest(worker._fabric, 0.01)


def content(master):
    """The values of both tables."""
    with Generation(master) as generation:
        generation.verify(deep=True)
        found = []
        for name in ("w", "s"):
            whole = np.zeros(ROWS)
            for keys, values in generation.values(name):
                whole[keys] = values[:, 0]
            found.append(whole)
        return found


def fit(run):
    """The masters of the generations that can be read, newest first."""
    found = []
    for master in generations(run):
        with contextlib.suppress(CheckpointError):
            content(master)
            found.append(master)
    return found


def flip(path, rng):
    data = bytearray(path.read_bytes())
    place = int(rng.integers(len(data)))
    for i in range(place, min(len(data), place + 16)):
        data[i] ^= int(rng.integers(1, 256))
    path.write_bytes(data)


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size))])


def delete(path, rng):
    path.unlink()


def needed_by(master):
    with Generation(master) as generation:
        return {server_path(master.parent, file.generation, file.rank) for file in generation.files}


def victims(run):
    """The files of each kind."""
    newest, before, *_ = generations(run)
    of_both = needed_by(newest) & needed_by(before)
    return {"master": [newest], "own": sorted(needed_by(newest) - of_both), "shared": sorted(of_both)}


@pytest.mark.parametrize("damage", [flip, truncate, delete])
@pytest.mark.parametrize("kind", ["master", "own", "shared"])
def test_a_job_names_what_is_damaged_and_goes_on_from_the_newest_whole_generation(
    trained, tmp_path, monkeypatch, rng, kind, damage
):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = generations(run)
    path = rng.choice(victims(run)[kind])
    damage(path, rng)
    whole = fit(run)
    assert whole, "damage to one file must not cost all"
    expected = content(whole[0])

    def look(worker):
        found = worker.table("s").pull(slice(None)).wait()
        sparse = np.zeros(ROWS)
        sparse[found[0]] = np.asarray(found[1]).reshape(-1)
        dense = worker.table("w").pull(range(ROWS)).wait()
        return [
            bool(np.array_equal(np.asarray(a).reshape(-1), b)) for a, b in zip((dense, sparse), expected, strict=True)
        ]

    again = job(run, look, servers=int(rng.integers(1, 4)), resume=True).run()
    assert again.results == [[True, True]]
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [each["generation"] for each in events if each["event"] == "restored"] == [number(whole[0])]
    notes = "\n".join(each["text"] for each in events if each["event"] == "note")
    if whole[0] != before[0] and before[0].exists():  # without its master it is no generation
        assert str(path) in notes
    if kind == "shared" and whole[0] != before[0]:
        assert whole[0] not in before[:2]
    assert whole[0] in generations(run)  # it still is what there is to go back to
    assert len(fit(run)) >= 2
