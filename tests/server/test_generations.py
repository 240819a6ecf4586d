"""Servers write what has changed; whatever happens meanwhile, every generation is whole and no change is missed."""

import json
from itertools import pairwise

import numpy as np
import pytest

from mpips.checkpoint import Generation, generations
from mpips.plan import Roles, Scale
from tests.simulated import SimulatedJob, program_plan, table

ROWS = 40_000
PUSHED = 3


def waves(seed, count):
    """A program that adds 1 to a few rows again and again, and returns all rows in the end."""

    def program(worker):
        rng = np.random.default_rng(seed)
        pushed, rest = worker.table("w"), worker._fabric
        for _ in range(count):
            keys = np.sort(rng.choice(ROWS, PUSHED, replace=False))
            pushed.push(keys, np.ones(keys.size)).wait()
            begin = rest.now()
            rest.wait(lambda begin=begin: rest.now() >= begin + 0.01, "a while")
        if pushed.spec.kind == "dense":
            return pushed.pull(range(ROWS)).wait().tolist()
        keys, values = pushed.pull(slice(None)).wait()
        whole = np.zeros(ROWS)
        whole[keys] = values
        return whole.tolist()

    return program


def saved(path):
    """All rows of a generation, and the share of its shards that it has in files of its own."""
    with Generation(path) as generation:
        generation.verify(deep=True)
        whole = np.zeros(ROWS)
        for keys, values in generation.values("w"):
            whole[keys] = values[:, 0]
        own = [file.generation == generation.number for file in generation.files]
        return whole, np.mean(np.array(own)[generation.index["w"]["file"]])


def run(tmp_path, kind, program, servers=3, resume=False, kills=(), **settings):
    plan = program_plan(
        program,
        table("w", kind=kind, rows=ROWS),
        roles=Roles(servers=servers, workers=1, spares=2),
        run=tmp_path,
        saves=True,
        save_every=0.03,
        keep=1_000,
        replicas=1,
        **settings,
    )
    job = SimulatedJob(plan, [0] * (servers + 4), 1, resume=resume)
    for rank, at in kills:
        job.simulation.kill(rank, at)
    return np.array(job.run().results[0])


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_no_change_is_missed_while_servers_come_leave_and_die(tmp_path, kind):
    scales = (Scale(at=0.1, servers=4), Scale(at=0.5, servers=3))
    final = run(tmp_path, kind, waves(1, 80), kills=[(2, 0.31)], scales=scales)
    found = [saved(path) for path in reversed(generations(tmp_path))]
    assert len(found) > 10
    for (before, _), (after, _) in pairwise(found):
        assert (before <= after).all()
    np.testing.assert_array_equal(found[-1][0], final)
    assert np.median([share for _, share in found]) < 0.9


@pytest.mark.parametrize("compression", [0, 1])
def test_a_server_writes_no_faster_than_it_may(tmp_path, compression):
    times = {}
    for rate in (0, 0.5):
        folder = tmp_path / str(rate)
        run(folder, "dense", waves(1, 1), servers=1, save_rate=rate, compression=compression)
        events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        times[rate] = next(event["seconds"] for event in events if event["event"] == "checkpoint")
        saved(generations(folder)[0])
    assert times[0] < 0.1
    assert times[0.5] > ROWS * 4 / 0.5e6


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("servers", [1, 3])
def test_a_resumed_job_writes_only_what_it_has_changed(tmp_path, kind, servers):
    before = run(tmp_path, kind, waves(1, 10), servers=2)
    first = len(generations(tmp_path))
    after = run(tmp_path, kind, waves(2, 1), servers=servers, resume=True)
    found = [saved(path) for path in reversed(generations(tmp_path))]
    np.testing.assert_array_equal(found[first - 1][0], before)
    np.testing.assert_array_equal(found[-1][0], after)
    assert after.sum() == before.sum() + PUSHED
    assert all(share < 1.0 for _, share in found[first:])


def test_every_shard_is_written_again_in_the_end_though_it_has_not_changed(tmp_path, monkeypatch):
    monkeypatch.setattr("mpips.server.written.TURNS", 8)
    run(tmp_path, "dense", waves(1, 80))
    found = [Generation(path) for path in reversed(generations(tmp_path))]
    for generation in found[8:]:
        with generation:
            assert min(file.generation for file in generation.files) > generation.number - 8
    assert len(found) > 16
    shares = [saved(generation.path)[1] for generation in found[1:]]
    assert np.median(shares) < 0.5
