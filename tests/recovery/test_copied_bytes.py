"""How much is copied when a server joins or is replaced, as the log of the run says."""

import json

import numpy as np
import pytest

from mpips.plan import Scale
from mpips.views.chains import chains_of
from mpips.views.view import Roles
from tests.simulated import PLACES, SimulatedJob, program_plan, rest, table

ROUNDS = 100
SPEC = table(rows=1 << 16, rule={"name": "adagrad"})
EXTRA = 1.2  # times what must be copied: changes to what is on its way, and its shards' numbers


def push_and_pull(worker):
    """Take a simulated second for it."""
    w, keys = worker.table("w"), np.arange(worker.index, SPEC.rows, 4096)
    for _ in range(ROUNDS):
        w.push(keys, np.ones(keys.size)).wait()
        w.pull(keys).wait()
        rest(worker._fabric, 1 / ROUNDS)


def job_of(folder, place, seed, **settings):
    roles = Roles(servers=4, data_servers=0, workers=2, spares=1)
    plan = program_plan(push_and_pull, SPEC, roles=roles, run=folder, saves=False, copy_share=1.0, **settings)
    return SimulatedJob(plan, PLACES[place](8), seed)


def logged(folder, name):
    events = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [event for event in events if event["event"] == name]


def bytes_of(view, server):
    """Those of all copies that a server has."""
    shards = [shard for shard, chain in enumerate(chains_of(view, SPEC).chains) if server in chain.servers]
    rows = sum(hi - lo for lo, hi in map(SPEC.shard_range, shards))
    return rows * SPEC.row_bytes * (1 + SPEC.slots)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("replicas", [0, 1])
def test_a_server_that_joins_is_sent_its_share_and_no_more(tmp_path, place, replicas, seed):
    job = job_of(tmp_path, place, seed, replicas=replicas, scales=[Scale(at=0.3, servers=5)]).run()
    assert job.outcome.exit == "finished", job.outcome.reason
    (scaled,) = logged(tmp_path, "scaled")
    (joined,) = set(job.ranks[0].view.servers) - set(job.view.servers)
    own = bytes_of(job.ranks[0].view, joined)
    assert (scaled["servers"], scaled["workers"]) == (5, None)
    assert own > 0
    assert own <= scaled["copied"] <= EXTRA * own


def test_a_recovery_says_how_much_was_copied(tmp_path, seed):
    job = job_of(tmp_path, "one node", seed, replicas=1)
    job.kill("server", at=0.3)
    job.run()
    assert job.outcome.exit == "finished", job.outcome.reason
    (copied,) = [event["copied"] for event in logged(tmp_path, "recovery") if event["stage"] == "whole"]
    view = job.ranks[job.view.scheduler].view
    (joined,) = set(view.servers) - set(job.view.servers)
    own = bytes_of(view, joined)
    assert own <= copied <= EXTRA * own
