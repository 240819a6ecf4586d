"""A generation that is a cut has of every worker the pushes up to one of them, on all servers and in all tables, and of
workloads whole ones; nobody stops for it.
"""

import json

import numpy as np
import pytest
from numba import njit

from mpips.checkpoint import Generation, generations
from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.functions import FUNCTIONS, shard_function
from mpips.plan import Plan, Roles, Scale
from tests.recovery.invariants import done_of
from tests.simulated import FAST, PLACES, SMALL, SimulatedJob, libsvm, program_plan, rest, table

ROWS = 40_000
SERVERS, WORKERS = 3, 3
STEPS = 60
PAUSE = 1e-3
SLOW = 1e-4, 5e-3
KINDS = ("dense", "sparse")


def whole(generation, name):
    """The values of all rows, zero where there is none."""
    values = np.zeros(ROWS)
    for keys, found in generation.values(name):
        values[keys] = found[:, 0]
    return values


def all_generations(path):
    """Of each, oldest first: the values of all tables, their clocks and the progress."""
    found = []
    for each in reversed(generations(path)):
        with Generation(each) as generation:
            generation.verify(deep=True)
            values = {name: whole(generation, name) for name in generation.tables}
            found.append((values, {name: generation.clocks[name] for name in values}, generation.progress))
    return found


def plan(tmp_path, program, *tables, **settings):
    roles = Roles(servers=SERVERS, workers=WORKERS, spares=2)
    settings = {"roles": roles, "saves": True, "save_every": 0.005, "keep": 1_000, "consistency": "cut", **settings}
    return program_plan(program, *tables, run=tmp_path, **settings)


def striped(worker):
    """Every step adds 1 to the rows of this worker's stripe, which lies on all servers, first in one table, then in the
    other; now and then to all of them by a range or a function.
    """
    mine = np.arange(worker.index, ROWS, 64)
    for step in range(STEPS):
        for name in KINDS:
            worker.table(name).push(mine, np.ones(mine.size))
        rest(worker._fabric, PAUSE * (1 + (step * 7 + worker.index) % 3))
    worker.settle()


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("latency", [FAST, SLOW])
def test_of_every_worker_all_pushes_up_to_one_are_in_it_and_no_others(tmp_path, places, latency):
    tables = [table(kind, kind=kind, rows=ROWS) for kind in KINDS]
    job = SimulatedJob(plan(tmp_path, striped, *tables), PLACES[places](9), 3, latency=latency)
    job.run()
    found = all_generations(tmp_path)
    assert len(found) > 3
    between = 0
    for values, clocks, _ in found:
        for index, identity in enumerate(job.view.workers):
            made = {name: values[name][index::64] for name in KINDS}
            for name in KINDS:
                assert (made[name] == made[name][0]).all()
                assert clocks[name].get(identity, 0) == made[name][0]
            assert made["dense"][0] - made["sparse"][0] in (0, 1)
            between += 0 < made["dense"][0] < STEPS
    assert between >= WORKERS


def test_the_same_job_without_cuts_mixes_them(tmp_path):
    tables = [table(kind, kind=kind, rows=ROWS) for kind in KINDS]
    job = SimulatedJob(plan(tmp_path, striped, *tables, consistency="fuzzy"), [0] * 9, 3, latency=SLOW)
    job.run()
    mixed = [values["dense"][::64] for values, *_ in all_generations(tmp_path)]
    assert any((made != made[0]).any() for made in mixed)


@pytest.fixture
def add_one():
    """A function that writes."""

    @shard_function(writes=True)
    @njit(nogil=True)
    def add_one(keys, values, state, argument):
        values += 1.0
        return 0.0

    yield add_one
    del FUNCTIONS["add_one"]


def ranges_and_functions(worker):
    """Every step adds 1 to all rows, by a push to the whole range, by keys or by a function."""
    everything = worker.table("dense")
    for step in range(STEPS):
        if step % 3 == 0:
            everything.push(range(ROWS), np.ones(ROWS))
        elif step % 3 == 1:
            everything.push(np.arange(ROWS), np.ones(ROWS))
        else:
            everything.call("add_one", range(ROWS))
        rest(worker._fabric, PAUSE)
    worker.settle()


@pytest.mark.parametrize("places", PLACES)
def test_ranges_and_functions_that_write_are_whole_in_it(tmp_path, places, add_one):
    job = SimulatedJob(
        plan(tmp_path, ranges_and_functions, table("dense", rows=ROWS)), PLACES[places](9), 5, latency=SLOW
    )
    job.run()
    found = all_generations(tmp_path)
    assert len(found) > 3
    for values, clocks, _ in found:
        assert (values["dense"] == values["dense"][0]).all()
        assert sum(clocks["dense"].values()) == values["dense"][0]


def in_lock_step(worker):
    summed = worker.table("w")
    for _ in range(STEPS):
        summed.push(np.arange(worker.index, ROWS, 64), np.ones(len(range(worker.index, ROWS, 64))))
        rest(worker._fabric, PAUSE * (1 + worker.index))
        summed.pull([0]).wait()
    worker.settle()


@pytest.mark.parametrize("places", PLACES)
def test_steps_that_are_summed_are_in_it_of_all_workers_or_of_none(tmp_path, places):
    summed = table("w", rows=ROWS, aggregate=True)
    job = SimulatedJob(plan(tmp_path, in_lock_step, summed, delay=4), PLACES[places](9), 7)
    job.run()
    found = all_generations(tmp_path)
    assert len(found) > 5
    for values, clocks, _ in found:
        steps = {float(values["w"][index::64].min()) for index in range(WORKERS)}
        steps |= {float(values["w"][index::64].max()) for index in range(WORKERS)}
        assert steps == {float(step) for step in clocks["w"].values()} or (steps == {0.0} and not clocks["w"])


# --- batches that are handed out --------------------------------------------------------------------------------------

EXAMPLES, FEATURES, PASSES = 600, 50, 3


def counting(worker):
    """Counts the examples, and the occurrences of each feature."""

    class Count:
        def train(self, batch):
            rest(worker._fabric, PAUSE * (1 + worker.index))
            worker.table("rows").push([0], [float(len(batch))])
            worker.table("w").push(batch.keys, np.bincount(batch.indices, minlength=batch.keys.size).astype(float))
            return float(len(batch))

        def evaluate(self, batch, histogram):
            histogram[:, 0] += 1
            return 0.0

    worker.train(Count())


def counts(tmp_path, seed, *, servers=SERVERS, workers=WORKERS, resume=False, kills=(), limit=600.0, **settings):
    if not (tmp_path / "x.libsvm").exists():
        libsvm(tmp_path / "x.libsvm", EXAMPLES, FEATURES, np.random.default_rng(7))
    data = DataSpec(format="libsvm", files=("x.libsvm",), batch=4, test=TestSplit(every=5))
    settings = {"save_every": 0.01, "keep": 1_000, "consistency": "cut", "passes": PASSES, **settings}
    job = SimulatedJob(
        Plan(
            program=counting,
            tables=lambda features: [table("w", rows=FEATURES), table("rows", rows=1)],
            roles=Roles(servers=servers, data_servers=1, workers=workers, spares=2),
            data=data,
            base=tmp_path,
            evaluate_every=1,
            run=tmp_path / "run",
            saves=True,
            memory=SMALL,
            threads=1,
            replicas=1,
            **settings,
        ),
        [rank % 2 for rank in range(servers + workers + 4)],
        seed,
        resume=resume,
    )
    for rank, at in kills:
        job.simulation.kill(rank, at)
    return job.run(limit)


def counted(path):
    """By generation: examples in the tables, occurrences of features, and the progress."""
    return [(int(values["rows"][0]), values["w"][:FEATURES], progress) for values, _, progress in all_generations(path)]


@pytest.mark.parametrize(("delay", "every"), [(0, 0.05), (3, 0.01), (None, 0.01)])
def test_a_cut_has_the_workloads_that_it_calls_done_and_no_others(tmp_path, delay, every):
    counts(tmp_path, 2, delay=delay, save_every=every)
    found = counted(tmp_path / "run")
    assert len(found) > 5
    train = EXAMPLES - EXAMPLES // 5
    for examples, _, progress in found:
        assert examples == progress["examples"] == progress["epochs"] * train + 4 * done_of(progress)
    assert len({examples for examples, *_ in found}) > 5
    assert found[-1][0] == PASSES * train


@pytest.mark.parametrize(("servers", "workers"), [(SERVERS, WORKERS), (2, 5), (4, 1)])
def test_a_job_that_goes_on_from_a_cut_counts_every_example_once(tmp_path, servers, workers):
    counts(tmp_path, 2, delay=3, save_every=0.03)
    whole = counted(tmp_path / "run")[-1]
    masters = sorted((tmp_path / "run").glob("generation-*.h5"))
    for master in masters[len(masters) // 2 :]:
        master.unlink()
    middle = counted(tmp_path / "run")[-1]
    assert 0 < middle[0] < whole[0]
    counts(tmp_path, 3, servers=servers, workers=workers, resume=True, delay=3, save_every=0.03)
    again = counted(tmp_path / "run")[-1]
    assert again[0] == whole[0]
    np.testing.assert_array_equal(again[1], whole[1])


@pytest.mark.parametrize("seed", range(4))
def test_cuts_stay_exact_while_ranks_die_and_come(tmp_path, seed):
    scales = (Scale(at=0.05, workers=WORKERS + 1), Scale(at=0.1, servers=SERVERS - 1))
    rng = np.random.default_rng(seed)
    kills = [(int(rank), float(rng.uniform(0.05, 0.35))) for rank in rng.permutation(range(1, 8))[:2]]
    job = counts(tmp_path, seed, delay=None, kills=kills, scales=scales if seed % 2 else ())
    assert job.outcome.exit == "finished", job.outcome.reason
    train = EXAMPLES - EXAMPLES // 5
    found = counted(tmp_path / "run")
    for examples, _, progress in found:
        assert examples == progress["examples"] == progress["epochs"] * train + 4 * done_of(progress)
    assert found[-1][0] == PASSES * train
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "checkpoint" for event in events) > 5
