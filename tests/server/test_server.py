"""A server between its messages: checkpoints while it serves, and going on from one."""

import numpy as np
import pytest

from mpips.checkpoint import Generation, generations
from mpips.messages import CreateTables, Measure, Measured, TablesReady
from mpips.plan import MB, Memory, Scale
from mpips.server.checkpoints import Checkpoints
from mpips.views.view import Roles
from tests.simulated import SLOW, SimulatedJob, Tape, program_plan, rest, run, table

ROLES = Roles(servers=2, data_servers=0, workers=1)
TABLES = (
    table("d", rows=5_000, width=2, rule={"name": "ftrl"}),
    table("s", kind="sparse", rows=100, rule={"name": "adagrad"}),
)


def push_some(worker, keys, value=1.0):
    worker.table("d").push(slice(None), np.full((5_000, 2), value))
    worker.table("s").push(np.asarray(keys), np.full(len(keys), value))
    worker.settle()


def pull_all(worker):
    keys, values = worker.table("s").pull(slice(None)).wait()
    return [worker.table("d").pull(slice(None)).wait().tolist(), keys.tolist(), values.tolist()]


def job(program, run_folder, resume=False, nodes=(0, 0, 0, 0), roles=ROLES, tables=TABLES, seed=1, **settings):
    plan = program_plan(program, *tables, roles=roles, run=run_folder, saves=True, **settings)
    return SimulatedJob(plan, list(nodes), seed, resume).run()


@pytest.mark.parametrize("servers", [1, 2, 5])
def test_a_resumed_job_has_every_value_and_its_state_with_any_number_of_servers(tmp_path, servers):
    def first(worker):
        push_some(worker, range(0, 3_000, 3))
        return pull_all(worker)

    def again(worker):
        before = pull_all(worker)
        push_some(worker, range(0, 3_000, 3))
        return [before, pull_all(worker)]

    def straight(worker):
        push_some(worker, range(0, 3_000, 3))
        push_some(worker, range(0, 3_000, 3))
        return pull_all(worker)

    saved = job(first, tmp_path).results[0]
    roles = Roles(servers=servers, data_servers=0, workers=1)
    before, after = job(again, tmp_path, True, [0] * (servers + 2), roles).results[0]
    assert before == saved
    assert after == run(straight, *TABLES, nodes=[0] * 3).results[0]  # the rule's state was there too


def test_a_checkpoint_holds_what_the_table_holds(tmp_path):
    def program(worker):
        push_some(worker, range(0, 3_000, 3))
        return pull_all(worker)

    dense, keys, values = job(program, tmp_path).results[0]
    with Generation(generations(tmp_path)[0]) as generation:
        assert generation.dense("d", 0, 5_000)[0].tolist() == dense
        got = [np.concatenate(parts) for parts in zip(*generation.sparse("s"), strict=True)]
        order = np.argsort(got[0])
        assert got[0][order].tolist() == keys
        assert got[1][order, 0].tolist() == values
        assert generation.clocks["d"][3] > 0


def test_pushes_are_served_while_a_checkpoint_is_written(tmp_path):
    def program(worker):
        slowest = 0.0
        while worker._fabric.now() < 5.0:
            start = worker._fabric.now()
            push_some(worker, range(10), 0.1)
            slowest = max(slowest, worker._fabric.now() - start)
            worker._fabric.wait(lambda end=start + 0.05: worker._fabric.now() >= end, "a while")
        return slowest

    done = job(program, tmp_path, save_every=0.5, keep=2)
    assert done.results[0] < 0.05
    assert int(generations(tmp_path)[0].stem.split("-")[1]) >= 5
    assert len(generations(tmp_path)) <= 4  # the two newest, and such as share little with them


@pytest.fixture
def slow_saves(monkeypatch):
    """Servers write a shard every 5 ms, so that much can happen meanwhile."""
    step, due = Checkpoints._step, {}

    def slowly(checkpoints):
        now = checkpoints._fabric.now()
        if now < due.get(checkpoints, 0.0):
            return False
        due[checkpoints] = now + 5e-3
        return step(checkpoints)

    monkeypatch.setattr(Checkpoints, "_step", slowly)


@pytest.mark.usefixtures("slow_saves")
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_every_generation_is_whole_whatever_shards_move_while_it_is_written(tmp_path, kind):
    keys = np.arange(20_000)

    def program(worker):
        worker.table("w").push(keys, np.ones(keys.size)).wait()
        rest(worker._fabric, 0.6)

    plan = program_plan(
        program,
        table(kind=kind, rows=keys.size, rule={"name": "adagrad"}),
        roles=Roles(servers=3, data_servers=0, workers=1, spares=1),
        run=tmp_path,
        saves=True,
        save_every=0.01,
        keep=1_000,
        scales=(Scale(at=0.05, servers=4), Scale(at=0.4, servers=2)),
    )
    SimulatedJob(plan, [0] * 6, 1, latency=SLOW).run().results  # noqa: B018
    found = generations(tmp_path)
    assert len(found) > 2
    for path in found:
        with Generation(path) as generation:
            if kind == "dense":
                values = generation.dense("w", 0, keys.size)[0]
            else:
                saved, values, _ = (np.concatenate(parts) for parts in zip(*generation.sparse("w"), strict=True))
                assert np.array_equal(np.sort(saved), keys), path
            assert values[0] != 0, path
            assert (values == values[0]).all(), path


def damage(folder, number, rank, offset=-300):
    """Change bytes of a server's file but not its size: found only when its data are read."""
    path = next(folder.glob(f"generation-*{number}/server-{rank}.h5"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2_000] = b"\x55" * 2_000
    path.write_bytes(data)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_fallback_to_an_older_generation_leaves_nothing_of_the_newer_one(tmp_path, rank):
    """The keys of the newer generation are not in the older one; one server's part of the newer can't be read."""

    def older(worker):
        push_some(worker, range(1_000))
        return pull_all(worker)

    def newer(worker):
        push_some(worker, range(50_000, 90_000))

    saved = job(older, tmp_path).results[0]
    job(newer, tmp_path, resume=True).results  # noqa: B018
    damage(tmp_path, 2, rank)
    resumed = job(pull_all, tmp_path, resume=True, save_every=0.0)
    got = resumed.results[0]
    assert got[0] == saved[0]
    assert got[1] == saved[1]
    assert got[2] == saved[2]
    assert "going back to" in (tmp_path / "metrics.jsonl").read_text()


def test_a_server_too_small_for_its_tables_ends_the_job_also_when_older_generations_are_there(tmp_path):
    for _ in range(2):
        job(lambda worker: push_some(worker, range(10)), tmp_path)
    small = job(
        pull_all,
        tmp_path,
        resume=True,
        memory=Memory(server=100_000, worker=MB),
        nodes=[0] * 3,
        roles=Roles(servers=1, data_servers=0, workers=1),
    )
    assert small.outcome.exit == "failed"
    assert "of the arena's 100,000 are in use" in small.outcome.reason


@pytest.mark.parametrize(
    "tables",
    [
        [table("d", rows=6_000, width=2, rule={"name": "ftrl"}), TABLES[1]],
        [table("d", rows=5_000, width=2, rule={"name": "add"}), TABLES[1]],
        [*TABLES, table("new")],
        [table("d", kind="sparse", rows=5_000, width=2, rule={"name": "ftrl"}), TABLES[1]],
    ],
)
def test_a_checkpoint_of_other_tables_is_refused(tmp_path, tables):
    job(lambda worker: push_some(worker, range(10)), tmp_path)
    other = job(lambda worker: 1, tmp_path, resume=True, tables=tables)
    assert other.outcome.exit == "failed"
    assert "does not have the shape or rule that the job file asks for" in other.outcome.reason


def test_a_job_with_nothing_to_resume_ends_on_every_rank_with_the_reason(tmp_path):
    done = job(lambda worker: 1, tmp_path, resume=True)
    assert {(outcome.exit, outcome.reason) for outcome in done.outcomes} == {
        ("failed", f"nothing to resume in {tmp_path}: it has no complete generation; start without --resume")
    }


def test_a_checkpoint_folder_that_can_not_be_written_fails_the_job_at_its_end(tmp_path):
    def program(worker):
        (tmp_path / "generation-000001").write_text("in the way")
        push_some(worker, range(10))

    done = job(program, tmp_path)
    events = (tmp_path / "metrics.jsonl").read_text()
    assert "checkpoint failed" in events
    assert done.outcome.exit in ("finished", "failed")  # another generation may succeed
    if done.outcome.exit == "finished":
        assert generations(tmp_path)


def test_servers_count_the_values_that_are_not_zero():
    def program(worker):
        worker.table("d").push([3, 4], np.array([[1, 0], [2, 3]])).wait()
        for server in (1, 2):
            worker._fabric.send(server, Measure(1))
        rest(worker._fabric, 0.01)

    plan = program_plan(program, table("d", width=2), table("s", kind="sparse"), roles=Roles(servers=2, data_servers=0))
    job = SimulatedJob(plan, [0] * 4, 1)
    heard = Tape(job.simulation.ranks[0], Measured)
    job.run().results  # noqa: B018
    counts = [message.nonzeros for _, message in heard.messages]
    assert [sum(count[name] for count in counts) for name in ("d", "s")] == [3, 0]


def test_a_server_makes_its_tables_once():
    def program(worker):
        worker.table("d").push([3], [1.0]).wait()
        worker._fabric.send(1, CreateTables([table("d")], None))
        rest(worker._fabric, 0.01)
        return worker.table("d").pull([3]).wait().tolist()

    job = SimulatedJob(program_plan(program, table("d"), roles=Roles(servers=1, data_servers=0)), [0] * 3, 1)
    ready = Tape(job.simulation.ranks[0], TablesReady)
    assert job.run().results == [[1.0]]
    assert [message.error for _, message in ready.messages] == [None, None]
