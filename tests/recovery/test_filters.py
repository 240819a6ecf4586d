"""Servers die while pushes and pulls go through filters: nothing is decoded twice, or lost that was held back."""

import numpy as np
import pytest

from mpips.views.view import Roles
from tests.recovery.test_lock_step import beyond, contents
from tests.simulated import FAST, PLACES, SimulatedJob, program_plan, table

ROWS, TURNS, WORKERS = 3000, 40, 2
KEY_CACHE, ZEROS, COMPRESSION = {"name": "key_cache"}, {"name": "zeros"}, {"name": "compression"}
CHANGES = {"name": "significance"}  # of a pull: what did not change is not told
HALF = {"name": "significance", "absolute": 0.5}
FINE = {"name": "delta", "absolute": 1e-3}
CHAINS = {
    "key_cache": ([KEY_CACHE], [KEY_CACHE]),
    "zeros, compression": ([ZEROS, COMPRESSION], [ZEROS, COMPRESSION]),
    "significance of pulls": ([], [CHANGES]),
    "all that lose nothing": ([ZEROS, KEY_CACHE, COMPRESSION], [CHANGES, KEY_CACHE, COMPRESSION]),
    "significance of pushes": ([HALF, KEY_CACHE], [CHANGES, KEY_CACHE]),
    "delta of pulls": ([KEY_CACHE], [KEY_CACHE, FINE]),
}


def keys_of(rng, kind, index):
    """Keys that only this worker pushes and pulls; some lists come again and again."""
    if rng.random() < 0.6:
        rng = np.random.default_rng(int(rng.integers(3)))
    every = np.arange(index, ROWS, WORKERS)
    rows = np.sort(rng.choice(every, 200, replace=False)).astype(np.uint64)
    return rows if kind == "dense" else rows * np.uint64(6_148_914_691_236_517)


def job_of(chain, kind, place, rng, held, latency):
    push_filters, pull_filters = CHAINS[chain]
    lossy = FINE["absolute"] if FINE in pull_filters else 0.0
    quarter = 0.25 if HALF in push_filters else 1.0

    def program(worker):
        w, rng, due = worker.table("w"), np.random.default_rng(worker.index), dict[int, float]()
        for _ in range(TURNS):
            keys = keys_of(rng, kind, worker.index)
            values = quarter * rng.integers(-2, 4, keys.size)
            w.push(keys, values)
            for key, value in zip(keys.tolist(), values.tolist(), strict=True):
                due[key] = due.get(key, 0.0) + value
            pulls = []
            for _ in range(int(rng.integers(0, 4))):
                keys = keys_of(rng, kind, worker.index)
                pulls.append((w.pull(keys), [due.get(key, 0.0) for key in keys.tolist()]))
            for pulled, expected in pulls:
                values = pulled.wait()
                assert HALF in push_filters or np.abs(values - expected).max() <= 1.01 * lossy
        worker.settle()
        for (_, direction), each in w._outgoing._chains.items():
            if direction == "push" and "significance" in each:
                for key, (update,) in zip(*each["significance"].held_back(), strict=True):
                    held[int(key)] = held.get(int(key), 0.0) + float(update)
        return due

    spec = table(kind=kind, rows=ROWS, rule={"name": "add"}, push_filters=push_filters, pull_filters=pull_filters)
    roles = Roles(servers=3, data_servers=0, workers=WORKERS, spares=2)
    plan = program_plan(program, spec, roles=roles, replicas=1, delay=0, copy_share=1.0)
    return SimulatedJob(plan, PLACES[place](8), int(rng.integers(1 << 30)), latency=latency)


def test_pushes_that_filters_had_packed_small_are_sent_again_as_there_is_room_for_them(rng):
    """Plain they are eight times the size, and all of them together four times that of the worker's arena."""
    turns, rows = 32, 8192

    def program(worker):
        w = worker.table("w")
        for turn in range(turns):
            w.push(range(rows), np.full(rows, float(turn % 2)))
        room = worker._fabric.space.size
        assert worker._fabric.space.used < room < turns * rows * 12
        worker.settle()
        return w.pull([0, rows - 1]).wait().tolist()

    spec = table(rows=rows, push_filters=[COMPRESSION])
    plan = program_plan(program, spec, roles=Roles(servers=2, data_servers=0, workers=1, spares=1), replicas=1)
    job = SimulatedJob(plan, PLACES["nodes of their own"](5), int(rng.integers(1 << 30)), latency=(1e-3, 2e-3))
    job.simulation.kill_at_message(1, 20)
    assert job.run(limit=300).results == [[turns / 2, turns / 2]]
    assert job.ranks[0].view.lost == [1]


@pytest.mark.parametrize("place", ["nodes of their own", "two nodes"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("chain", CHAINS)
def test_what_filters_lose_nothing_of_is_exact_when_servers_die(chain, kind, place, rng):
    held: dict[int, float] = {}
    latency = FAST if rng.random() < 0.5 else (1e-5, 1e-3)
    job = job_of(chain, kind, place, rng, held, latency)
    for victim in rng.permutation([*job.view.servers, *job.view.spares])[: rng.integers(1, 3)].tolist():
        if rng.random() < 0.5:
            job.simulation.kill(victim, float(rng.uniform(0, 0.03)))
        else:
            job.simulation.kill_at_message(victim, int(rng.integers(1, 300)))
    job.run(limit=300)
    if beyond(job):
        return
    due: dict[int, float] = {}
    for part in job.results:
        due.update(part)
    found: dict[int, float] = {}
    for (_, shard), part in contents(job).items():
        if kind == "dense":
            lo, _ = job.plan.tables(0)[0].shard_range(shard)
            found.update((lo + i, value) for i, (value,) in enumerate(part))
        else:
            found.update((key, value) for key, (value,) in part)
    assert {key: found.get(key, 0.0) + held.get(key, 0.0) for key in due} == due
