"""What is recorded of traced keys: every update once, by whom, how much, with the values before and after."""

from itertools import pairwise

import numpy as np
import pytest

from mpips.plan import Scale
from mpips.scheduler.requests import Asked, KeysToTrace
from mpips.server import tracing
from mpips.trace import Share, Trace
from mpips.views.view import Roles
from tests.simulated import PLACES, SLOW, SimulatedJob, program_plan, rest, table

KEYS = [3, 70, 71, 4_999]
OTHERS = [3, 2**40, 2**64 - 1]
PUSHES = 12
DENSE = table("d", rows=5_000, width=2, rule={"name": "adagrad", "alpha": 0.3})
SPARSE = table("s", kind="sparse", rows=1_000, rule={"name": "ftrl", "alpha": 0.3})
TRACE = {"d": KEYS, "s": OTHERS}


def numbers(worker, turn, width=1):
    return [float(100 * worker + turn + column / 8) for column in range(width)]


def pushing(worker):
    """Push to scattered keys, to some by ranges, and to many that nobody looks at; what the tables then have."""
    d, s = worker.table("d"), worker.table("s")
    for turn in range(PUSHES):
        value = np.array(numbers(worker.index, turn, 2))
        keys = np.arange(turn % 3, 5_000, 3)
        d.push(keys, np.tile(value, (keys.size, 1)))
        d.push(range(60, 80), np.tile(-value, (20, 1)))
        keys = np.array(sorted({*OTHERS, turn, turn + 10**9, turn + 2**50}), np.uint64)
        s.push(keys, np.full(keys.size, numbers(worker.index, turn)[0]))
        if turn % 4 == 3:
            worker.settle()
    worker.settle()
    worker.sum(1.0).wait()
    return [d.pull(np.array(KEYS)).wait().tolist(), s.pull(np.array(OTHERS, np.uint64)).wait().tolist()]


def job(
    program, run, *tables, place="one node", seed=1, servers=2, workers=2, spares=0, trace=TRACE, kill=(), **settings
):
    roles = Roles(servers=servers, data_servers=0, workers=workers, spares=spares)
    plan = program_plan(program, *tables, roles=roles, run=run, trace=trace, **settings)
    made = SimulatedJob(
        plan, PLACES[place](1 + servers + workers + spares), seed, latency=SLOW if kill else (5e-6, 5e-5)
    )
    for role, at in kill:
        made.kill(role, at)
    made.run()
    assert made.outcome.exit == "finished", made.outcome.reason
    return made


def recorded(run, name, key):
    return [update for update in Trace(run).new() if (update.table, update.key) == (name, key)]


def due(workers, name, key):
    """What is pushed to a key: (identity, numbers) of every push, of each worker in its order."""
    pushes = {identity: [] for identity in workers}
    for index, identity in enumerate(workers):
        for turn in range(PUSHES):
            if name == "s":
                pushes[identity].append(numbers(index, turn))
                continue
            if key % 3 == turn % 3:
                pushes[identity].append(numbers(index, turn, 2))
            if 60 <= key < 80:
                pushes[identity].append([-number for number in numbers(index, turn, 2)])
    return pushes


def check(run, workers, results):
    for name, keys, values in (("d", KEYS, results[0]), ("s", OTHERS, results[1])):
        for key, value in zip(keys, values, strict=True):
            updates = recorded(run, name, key)
            pushes = {identity: [] for identity in workers}
            for update in updates:
                (share,) = update.shares
                pushes[share.worker].append(share.update)
            assert pushes == due(workers, name, key)
            assert updates[0].before == [0.0] * len(updates[0].before)
            assert all(a.after == b.before for a, b in pairwise(updates))
            assert updates[-1].after == np.atleast_1d(value).tolist()


@pytest.mark.parametrize("place", PLACES)
def test_every_update_of_a_traced_key_is_recorded_with_who_and_how_much(tmp_path, place):
    done = job(pushing, tmp_path, DENSE, SPARSE, place=place)
    check(tmp_path, done.view.workers, done.results[0])
    shares = {(share.worker, share.rank) for update in Trace(tmp_path).new() for share in update.shares}
    assert shares == {(rank, rank) for rank in done.view.workers}
    assert {update.server for update in Trace(tmp_path).new()} == set(done.view.servers)


def test_filters_are_passed_before_an_update_is_recorded(tmp_path):
    filters = [{"name": "zeros"}, {"name": "key_cache"}, {"name": "compression"}]
    tables = (
        table("d", rows=5_000, width=2, rule=DENSE.rule, push_filters=filters),
        table("s", kind="sparse", rows=1_000, rule=SPARSE.rule, push_filters=filters),
    )

    def program(worker):
        for turn in range(1, 4):
            worker.table("d").push(np.array(KEYS), np.array([[turn, 0.0], [0.0, 0.0], [turn, turn], [0.0, 0.0]]))
            worker.table("s").push(np.array(OTHERS, np.uint64), np.array([0.0, turn, turn]))
        worker.settle()

    job(program, tmp_path, *tables, place="nodes of their own", workers=1)
    updates = [(update.table, update.key, update.shares[0].update) for update in Trace(tmp_path).new()]
    assert sorted(updates) == sorted(
        [("d", 3, [turn, 0.0]) for turn in (1.0, 2.0, 3.0)]
        + [("d", 71, [turn, turn]) for turn in (1.0, 2.0, 3.0)]
        + [("s", key, [turn]) for turn in (1.0, 2.0, 3.0) for key in OTHERS[1:]]
    )


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_copy_of_a_server_that_dies_records_on(tmp_path, seed):
    killed = job(
        pushing,
        tmp_path,
        DENSE,
        SPARSE,
        seed=seed,
        servers=3,
        spares=1,
        replicas=1,
        kill=[("server", 0.03 + 0.01 * seed)],
    )
    check(tmp_path, killed.view.workers, killed.results[0])
    servers = [
        {update.server for update in recorded(tmp_path, name, key)} for name, keys in TRACE.items() for key in keys
    ]
    assert max(len(each) for each in servers) == 2


def test_servers_that_come_later_record_too(tmp_path):
    """They are asked to trace more keys while the job runs, before others come."""

    def program(worker):
        assert worker.index == 0
        asked = Asked(tmp_path, KeysToTrace(table="d", keys=KEYS))
        worker._fabric.wait(lambda: (answer := asked.answer()) is not None and answer.is_last, "the answer")
        assert asked.answer().text == 'table "d": 4 keys are traced now'
        asked.close()
        worker.table("d").push(np.array(KEYS), np.ones((4, 2))).wait()
        rest(worker._fabric, 5.0)
        worker.table("d").push(np.array(KEYS), np.ones((4, 2))).wait()

    done = job(program, tmp_path, DENSE, workers=1, servers=1, spares=3, trace={}, scales=[Scale(at=2.0, servers=4)])
    for key in KEYS:
        assert [update.shares[0].update for update in recorded(tmp_path, "d", key)] == [[1.0, 1.0]] * 2
    assert {update.server for update in Trace(tmp_path).new()} > set(done.view.servers)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_pushes_that_are_applied_as_one_are_recorded_as_one_with_all_who_have_a_share(tmp_path, kind):
    spec = table("w", kind=kind, rows=1_000, aggregate=True, rule={"name": "adagrad", "alpha": 1.0, "beta": 0.0})

    def program(worker):
        keys = np.array([5, 6 + worker.index, 900])
        worker.table("w").push(keys, np.full(3, 1.0 + worker.index)).wait()
        if kind == "dense":  # ranges, too
            worker.table("w").push(range(800, 1_000), np.full(200, -1.0)).wait()

    done = job(program, tmp_path, spec, trace={"w": [5, 6, 7, 900]})
    one, two = done.view.workers

    def found(key):
        return [(update.shares, update.before, update.after) for update in recorded(tmp_path, "w", key)]

    both = [Share(worker=one, rank=one, update=[1.0]), Share(worker=two, rank=two, update=[2.0])]
    assert found(5) == [(both, [0.0], [-1.0])]
    assert found(6) == [(both[:1], [0.0], [-1.0])]
    assert found(7) == [(both[1:], [0.0], [-1.0])]
    assert found(900)[0] == (both, [0.0], [-1.0])
    if kind == "dense":
        (shares, before, after), *more = found(900)[1:]
        assert [share.update for share in shares] == [[-1.0], [-1.0]]
        assert before == [-1.0]
        assert after == pytest.approx([-1.0 + 2.0 / np.sqrt(13.0)])
        assert not more


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_what_a_function_changes_is_recorded_and_nothing_else_of_it(tmp_path, kind):
    def program(worker):
        w = worker.table("w")
        w.push(np.array([5, 6, 900]), np.array([1.0, 0.25, -2.0])).wait()
        w.call("soft_threshold", range(800), [0.5]).wait()
        w.norm(1)

    done = job(program, tmp_path, table("w", kind=kind, rows=1_000), workers=1, trace={"w": [5, 6, 7, 900]})
    (worker,) = done.view.workers
    found = [
        (each.key, each.shares, each.before, each.after)
        for each in Trace(tmp_path).new()
        if each.function == "soft_threshold"
    ]
    share = [Share(worker=worker, rank=worker)]
    assert sorted(found, key=str) == [(5, share, [1.0], [0.5]), (6, share, [0.25], [0.0])]
    assert len(Trace(tmp_path).new()) == 5


def test_without_traced_keys_there_is_no_file(tmp_path):
    job(pushing, tmp_path, DENSE, SPARSE, trace={})
    assert not list(tmp_path.glob("trace*"))


def test_what_an_earlier_job_has_recorded_is_removed(tmp_path):
    job(pushing, tmp_path, DENSE, SPARSE)
    assert Trace(tmp_path).new()
    job(pushing, tmp_path, DENSE, SPARSE, trace={})
    assert Trace(tmp_path).new() == []


def test_what_comes_too_fast_for_the_disk_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "WAITING", 5)

    def program(worker):
        for turn in range(20):
            worker.table("d").push(np.arange(5_000), np.full((5_000, 2), turn))
        worker.settle()
        rest(worker._fabric, 1.0)

    job(program, tmp_path, DENSE, workers=1, servers=1, trace={"d": KEYS})
    updates = Trace(tmp_path).new()
    assert len(updates) + sum(update.missed for update in updates) == 20 * len(KEYS)


def test_a_run_folder_that_can_not_be_written_is_said_once(tmp_path, monkeypatch):
    def full(self, updates):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracing.TraceFile, "append", full)
    done = job(pushing, tmp_path, DENSE, SPARSE)
    notes = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if "can't be recorded" in line]
    assert len(notes) == len(done.view.servers)
    assert all("No space left" in note for note in notes)
