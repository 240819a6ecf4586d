"""Programs in lock-step, whose pushes are summed, while servers die: the tables end as undisturbed, to the bit."""

from functools import cache

import numpy as np
import pytest

from mpips.views.chains import chains_of
from mpips.views.view import Roles
from tests.simulated import FAST, PLACES, SimulatedJob, program_plan, table

STEPS = 25
SERVERS, WORKERS, SPARES = 3, 2, 3
RANKS = 1 + SERVERS + WORKERS + SPARES
TABLES = (
    table("d", rows=3000, rule={"name": "add"}, aggregate=True),
    table("s", kind="sparse", rows=3000, rule={"name": "add"}, aggregate=True),
    table("each", rows=600, rule={"name": "add"}),
)
everywhere = pytest.mark.parametrize("place", PLACES)


def in_step(worker):
    """Push a part of every step to summed tables; the values depend on what the step before has left there, which each
    worker sees alike.
    """
    rng = np.random.default_rng(worker.index)
    dense, sparse, each = (worker.table(name) for name in ("d", "s", "each"))
    for step in range(STEPS):
        lo = 137 * step % 2000
        seen = dense.pull(range(lo, lo + 600)).wait()
        dense.push(range(lo, lo + 600), np.sin(seen) + rng.random(600))
        keys = np.sort(rng.choice(5000, 50, replace=False)).astype(np.uint64) * 977
        sparse.push(keys, np.cos(sparse.pull(keys).wait()) + 1e-3 * worker.index)
        each.push([step], [1.0])
        if step % 5 == 4:
            dense.push(
                np.arange(worker.index, 3000, 7, dtype=np.uint64), np.full(len(range(worker.index, 3000, 7)), 0.1)
            )
            worker.settle()
            worker.sum(1.0).wait()
    worker.settle()
    worker.sum(1.0).wait()


def run(place="one node", seed=1, replicas=1, program=in_step, disturb=lambda job: None, latency=FAST, **settings):
    roles = Roles(servers=SERVERS, data_servers=0, workers=WORKERS, spares=SPARES)
    plan = program_plan(program, *TABLES, roles=roles, replicas=replicas, delay=0, copy_share=1.0, **settings)
    job = SimulatedJob(plan, PLACES[place](RANKS), seed, latency=latency)
    disturb(job)
    return job.run(limit=300)


def living(job):
    """The view in force, and the servers of the ranks that live."""
    fabrics = job.simulation.ranks
    ranks = {rank: each for rank, each in job.ranks.items() if not fabrics[rank].dead}
    view = max((each.view for each in ranks.values()), key=lambda view: view.number)
    return view, {rank: each._server for rank, each in ranks.items() if each._server is not None}


def contents(job):
    """Of every table what it holds; all copies of a shard must have the same."""
    view, servers = living(job)
    found = {}
    specs = next([shards.spec for shards in server.tables] for server in servers.values() if server.tables)
    for index, spec in enumerate(specs):
        for shard, chain in enumerate(chains_of(view, spec).chains):
            copies = []
            for server in chain.servers[: chain.copies]:
                if server in servers:
                    shards = servers[server].tables[index]
                    if spec.kind == "dense":
                        copies.append(shards.dense_rows(shard)[0].tolist())
                    else:
                        keys, values, _ = shards.rows(shard)
                        copies.append(sorted(zip(keys.tolist(), values.tolist(), strict=True)))
            assert copies
            assert all(copy == copies[0] for copy in copies), (spec.name, shard, chain)
            found[spec.name, shard] = copies[0]
    return found


@cache
def undisturbed():
    """What the tables hold without a fault."""
    return contents(run())


def outcome(job):
    """What the last scheduler made of the job."""
    desks = [rank for rank, each in job.ranks.items() if each._desk is not None and job.outcomes[rank] is not None]
    return job.outcomes[max(desks, key=lambda rank: job.ranks[rank].view.number)]


def beyond(job):
    """Whether more servers died than there are copies, or others to take their shards."""
    return any(kind in outcome(job).reason for kind in ("no copy is left", "no server is left"))


@everywhere
@pytest.mark.parametrize("replicas", [1, 2])
def test_servers_die_and_the_sums_are_the_same_to_the_bit(place, replicas, rng):
    def disturb(job):
        victims = rng.permutation([*job.view.servers, *job.view.spares])[: rng.integers(1, 1 + replicas + 1)]
        for victim in victims.tolist():
            if rng.random() < 0.5:
                job.simulation.kill(victim, float(rng.uniform(0, 0.05)))
            else:
                job.simulation.kill_at_message(victim, int(rng.integers(1, 400)))

    latency = FAST if rng.random() < 0.5 else (1e-5, 1e-3)
    job = run(place, int(rng.integers(1 << 30)), replicas, disturb=disturb, latency=latency)
    if beyond(job):
        return
    assert job.outcome.exit == "finished", job.outcome.reason
    assert contents(job) == undisturbed()
