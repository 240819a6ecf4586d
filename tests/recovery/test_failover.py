"""Servers die while workers push: what was acknowledged is in the tables once, and the job goes on."""

import numpy as np
import pytest

from mpips.views.view import Roles
from tests.simulated import PLACES, SimulatedJob, program_plan, table

PUSHES = 40


def counting(worker):
    """Push ones to scattered keys and to ranges; what each key must have in the end."""
    rng = np.random.default_rng(worker.index)
    due = {name: np.zeros(spec.spec.rows) for name, spec in worker.tables.items()}
    for _ in range(PUSHES):
        for name, pushed in worker.tables.items():
            keys = np.unique(rng.integers(0, pushed.spec.rows, 300)).astype(np.uint64)
            pushed.push(keys, np.ones(keys.size))
            due[name][keys] += 1
            if pushed.spec.kind == "dense":
                lo = int(rng.integers(0, pushed.spec.rows - 500))
                pushed.push(range(lo, lo + 500), np.ones(500))
                due[name][lo : lo + 500] += 1
        if rng.random() < 0.3:
            worker.settle()
            worker.tables["d"].pull(range(10)).wait()
    worker.settle()
    return {name: counts.tolist() for name, counts in due.items()}


def reader(worker):
    """As `counting`; the first worker then reads everything."""
    due = counting(worker)
    worker.sum(1.0).wait()
    if worker.index > 0:
        return [due, None]
    found = {}
    for name, pulled in worker.tables.items():
        if pulled.spec.kind == "dense":
            found[name] = pulled.pull(range(pulled.spec.rows)).wait().tolist()
        else:
            keys, values = pulled.pull(slice(None)).wait()
            whole = np.zeros(pulled.spec.rows)
            whole[keys] = values
            found[name] = whole.tolist()
    return [due, found]


def check(job):
    """Every push is in the tables, and is so once."""
    assert job.outcome.exit == "finished", job.outcome.reason
    due = [part for part, _ in job.outcome.results]
    found = next(found for _, found in job.outcome.results if found)
    for name, values in found.items():
        assert (np.sum([part[name] for part in due], axis=0) == values).all(), name


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(4))
def test_a_server_dies_and_its_replica_goes_on(place, seed):
    ranks = 1 + 3 + 2
    plan = program_plan(reader, table("d"), table("s", kind="sparse"), roles=Roles(servers=3, workers=2), replicas=1)
    job = SimulatedJob(plan, PLACES[place](ranks), seed)
    job.simulation.kill(job.view.servers[seed % 3], 1e-3 * (1 + seed))
    job.run()
    check(job)
