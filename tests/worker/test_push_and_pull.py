"""Push and pull as a worker's program sees them, on one node, between nodes and mixed."""

import numpy as np
import pytest

from mpips.fabric import ArenaFull, Deadline
from mpips.messages import Push
from mpips.plan import MB, Memory
from mpips.tasks import TaskRefused
from mpips.views.view import Roles
from mpips.worker.keys import KeyRangeError
from mpips.worker.pushes import NonFiniteError
from tests.simulated import PLACES, SLOW, SimulatedJob, program_plan, run, table

ROWS = 30_000
EDGES = [0, 1, 2**63, 2**64 - 2, 2**64 - 1]
everywhere = pytest.mark.parametrize("place", PLACES)
values_of = pytest.mark.parametrize(
    ("width", "dtype"), [(1, "float32"), (3, "float32"), (1, "float64"), (3, "float64")]
)


def shaped(values, width):
    return values[:, 0] if width == 1 else values


@everywhere
@values_of
def test_a_dense_table_is_an_array_to_all_workers(place, width, dtype, seed):
    """Every worker adds to ranges and lists at random, as NumPy does; the sums are the same."""

    def program(worker):
        w = worker.table("w")
        rng = np.random.default_rng([seed, worker.index])
        mine = np.zeros((ROWS, width), dtype)
        for _ in range(5):
            lo, hi = np.sort(rng.integers(0, ROWS + 1, 2)).tolist()
            keys = np.sort(rng.choice(ROWS, int(rng.integers(0, 2_000)), replace=False))
            for where, n in ((range(lo, hi), hi - lo), (keys, keys.size)):
                values = rng.integers(-9, 9, (n, width)).astype(dtype)
                w.push(where, shaped(values, width))
                mine[where] += values
        worker.settle()
        return mine.ravel().tolist()

    spec = table(rows=ROWS, width=width, dtype=dtype)
    job = run(program, spec, nodes=PLACES[place](7), servers=3, seed=seed)
    expected = np.sum([np.array(result, dtype).reshape(ROWS, width) for result in job.results], axis=0)
    got = read_all(job, spec)
    np.testing.assert_array_equal(got, expected)
    assert np.count_nonzero(got) > ROWS / 3


def read_all(job, spec):
    """A dense table as its servers hold it."""
    whole = np.full((spec.rows, spec.width), np.nan, spec.dtype)
    for server in job.servers.values():
        for shard in server.tables[0].held:
            lo, hi = spec.shard_range(shard)
            assert np.isnan(whole[lo:hi]).all()  # of one server only
            whole[lo:hi] = server.tables[0].dense_rows(shard)[0]
    return whole


@everywhere
@values_of
def test_what_was_pushed_is_pulled_by_range_by_list_and_into_an_array(place, width, dtype, seed):
    expected = np.random.default_rng(seed).normal(size=(ROWS, width)).astype(dtype)

    def program(worker):
        w = worker.table("w")
        w.push(slice(None), shaped(expected, width)).wait()
        keys = np.sort(np.random.default_rng(seed).choice(ROWS, 3_000, replace=False))
        out = np.empty((1_000, width) if width > 1 else 1_000, dtype)
        got = {
            "all": w.pull(slice(None)).wait(),
            "range": w.pull(range(777, 20_001)).wait(),
            "consistent": w.pull(range(777, 20_001), consistent=True).wait(),
            "list": w.pull(keys).wait(),
            "again": w.pull(w.keys(keys)).wait(),
            "none": w.pull([]).wait(),
            "empty": w.pull(range(5, 5)).wait(),
        }
        assert w.pull(range(1_000), out=out).wait().base is not None
        values = shaped(expected, width)
        for name, wanted in (
            ("all", values), ("range", values[777:20_001]), ("consistent", values[777:20_001]),
            ("list", values[keys]), ("again", values[keys]), ("none", values[:0]), ("empty", values[:0]),
        ):  # fmt: skip
            np.testing.assert_array_equal(got[name], wanted, name)
            assert got[name].dtype == dtype
        np.testing.assert_array_equal(out, values[:1_000])
        return True

    job = run(
        program,
        table(rows=ROWS, width=width, dtype=dtype, rule={"name": "assign"}),
        nodes=PLACES[place](4),
        servers=2,
        seed=seed,
    )
    assert job.results == [True]


@everywhere
@values_of
def test_a_sparse_table_is_a_dictionary_of_any_key(place, width, dtype, seed):
    def program(worker):
        s = worker.table("s")
        rng = np.random.default_rng(seed)
        expected = {}
        for _ in range(5):
            keys = np.unique(np.concatenate([rng.integers(0, 2**64, 1_500, np.uint64), np.array(EDGES, np.uint64)]))
            values = rng.integers(-9, 9, (keys.size, width)).astype(dtype)
            s.push(keys, shaped(values, width))
            for key, value in zip(keys.tolist(), values, strict=True):
                expected[key] = expected.get(key, 0) + value
        s.settle()
        known = np.array(sorted(expected), np.uint64)
        wanted = np.array([expected[key] for key in known.tolist()], dtype).reshape(-1, width)
        np.testing.assert_array_equal(s.pull(known).wait(), shaped(wanted, width))
        assert not s.pull([5, 6, 7]).wait().any()  # never pushed
        for lo, hi in ((0, None), (0, 2**63), (2**63, 2**64 - 1), (2**64 - 1, 2**64), (1, 1), (2, 3)):
            at = (known >= np.uint64(lo)) & ((known < np.uint64(hi)) if hi is not None and hi < 2**64 else True)
            keys, values = s.pull(slice(lo, hi)).wait()
            np.testing.assert_array_equal(keys, known[at])
            np.testing.assert_array_equal(values, shaped(wanted[at], width))
        return len(expected)

    job = run(
        program,
        table("s", kind="sparse", rows=10, width=width, dtype=dtype),
        nodes=PLACES[place](4),
        servers=2,
        seed=seed,
    )
    assert job.results[0] > 7_000


@everywhere
def test_a_push_after_another_task_is_sent_after_it_and_lost_to_no_younger_one(place, seed):
    def program(worker):
        a, b = worker.table("a"), worker.table("b")
        slow = b.push(slice(None), np.ones(ROWS, np.float32))
        late = a.push([1, 9_000], [1.0, 1.0], after=[slow])
        early = a.push([2, 9_001], [1.0, 1.0])
        early.wait()
        was = late.finished
        worker.settle()
        ended = slow.finished and late.finished
        return [was, ended, a.pull([1, 2, 9_000, 9_001]).wait().tolist()]

    job = run(program, table("a"), table("b", rows=ROWS), nodes=PLACES[place](4), servers=2, seed=seed)
    assert job.results[0][1:] == [True, [1.0] * 4]


def test_a_pull_after_a_push_sees_it(seed):
    def program(worker):
        w = worker.table("w")
        got = []
        for i in range(1, 30):
            push = w.push([3], [1.0])
            got.append(w.pull([3], after=[push]).wait().tolist() == [float(i)])
        return all(got)

    for place in PLACES.values():
        assert run(program, table(), nodes=place(3), seed=seed).results == [True]


@everywhere
@pytest.mark.parametrize("delay", [0, 1, 4])
def test_a_pull_comes_after_all_but_the_newest_pushes(place, delay, seed):
    def program(worker):
        w = worker.table("w")
        behind = []
        for i in range(1, 40):
            w.push([3], [1.0])
            behind.append(i - int(w.pull([3]).wait()[0]))
        return behind

    behind = run(program, table(), nodes=PLACES[place](4), workers=1, servers=2, delay=delay, seed=seed).results[0]
    assert min(behind) >= 0
    assert max(behind) <= delay


def test_without_a_bound_a_worker_runs_ahead_of_its_pushes(seed):
    def program(worker):
        w = worker.table("w")
        tasks = [w.push([3], [1.0]) for _ in range(20)]
        ahead = sum(not task.finished for task in tasks)
        w.pull([3]).wait()
        worker.settle()
        return [ahead, float(w.pull([3]).wait()[0])]

    assert run(program, table(), nodes=[0, 1, 2], seed=seed).results == [[20, 20.0]]


def test_the_values_of_a_push_may_be_overwritten_at_once(seed):
    def program(worker):
        w = worker.table("w")
        values = np.ones(100, np.float32)
        for _ in range(20):
            w.push(range(100), values)
            values[:] = 99
            values[:] = 1
        w.push(np.arange(100), values)
        values[:] = np.nan
        worker.settle()
        return w.pull(range(100)).wait().tolist()

    for place in PLACES.values():
        assert run(program, table(), nodes=place(3), seed=seed).results == [[21.0] * 100]


def test_a_full_arena_makes_a_worker_wait_for_its_pushes_and_not_fail(seed):
    def program(worker):
        w = worker.table("w")
        for _ in range(30):
            w.push(slice(None), np.ones(ROWS, np.float32))  # 120 kB of 256
        worker.settle()
        assert worker._fabric.space.used == 0
        return np.unique(w.pull(slice(None)).wait()).tolist()

    memory = Memory(server=4 * MB, worker=MB // 4)
    for place in PLACES.values():
        assert run(program, table(rows=ROWS), nodes=place(4), servers=2, memory=memory, seed=seed).results == [[30.0]]


def test_a_push_larger_than_the_arena_is_refused():
    def program(worker):
        with pytest.raises(ArenaFull):
            worker.table("w").push(slice(None), np.ones(ROWS, np.float32))
        return True

    assert run(program, table(rows=ROWS), nodes=[0] * 3, memory=Memory(server=4 * MB, worker=65_536)).results == [True]


@everywhere
def test_wrong_keys_and_values_are_refused_with_words_and_nothing_is_sent(place):
    def program(worker):
        w, s, m = worker.table("w"), worker.table("s"), worker.table("m")
        one = np.ones(1, np.float32)
        wrong = [
            (KeyRangeError, 'table "w": key 10000 is out of range [0, 10000)', lambda: w.pull([3, 10_000])),
            (KeyRangeError, 'table "w": key 10000 is out of range [0, 10000)', lambda: w.push([10_000], one)),
            (KeyRangeError, "must be sorted and unique, but 4 precedes 3", lambda: w.push([4, 3], [1, 1])),
            (KeyRangeError, "must be sorted and unique, but 4 precedes 4", lambda: s.pull([2, 4, 4])),
            (KeyRangeError, "keys must be integers from 0 to 2^64 - 1, got -1", lambda: w.pull([-1, 3])),
            (KeyRangeError, "got 0.5", lambda: w.pull([0.5])),
            (KeyRangeError, 'table "w"', lambda: w.pull([[1, 2]])),
            (KeyRangeError, "range [0, 10001) is not within [0, 10000)", lambda: w.pull(range(10_001))),
            (KeyRangeError, "range [7, 3) is not within [0, 10000)", lambda: w.pull(range(7, 3))),
            (KeyRangeError, "no step", lambda: w.pull(range(0, 10, 2))),
            (KeyRangeError, 'table "s"', lambda: s.pull(slice(-5, None)).wait()),
            (KeyRangeError, 'table "s"', lambda: s.pull(range(2**64 + 1, 2**64 + 3)).wait()),
            (KeyRangeError, 'table "s" is sparse: push a key list', lambda: s.push(range(1), one)),
            (ValueError, "2 keys need values of shape (2,), got (1,)", lambda: w.push([1, 2], one)),
            (ValueError, "2 keys need values of shape (2, 3), got (3, 2)", lambda: m.push([1, 2], np.ones((3, 2)))),
            (
                ValueError,
                "out must be contiguous float32 of shape (2,), got float64 (2,)",
                lambda: w.pull([1, 2], out=np.ones(2)),
            ),
            (
                NonFiniteError,
                "1 of 2 values are NaN or infinite, the first at key 7",
                lambda: w.push([3, 7], [0, np.nan]),
            ),
            (
                NonFiniteError,
                "2 of 3 values are NaN or infinite, the first at key 5",
                lambda: w.push(range(5, 8), [np.inf, 0, -np.inf]),
            ),
            (
                NonFiniteError,
                "1 of 6 values are NaN or infinite, the first at key 9",
                lambda: m.push([8, 9], [[0, 0, 0], [0, np.nan, 0]]),
            ),
            (KeyError, "nothing", lambda: worker.table("nothing")),
        ]
        failures = []
        for kind, text, what in wrong:
            try:
                what()
                failures.append(f"accepted: {text}")
            except Exception as error:
                if not isinstance(error, kind) or text not in str(error):
                    failures.append(f"{text!r}: {type(error).__name__}: {error}")
        worker.settle()
        assert worker._fabric.space.used == 0
        assert not w.pull(slice(None)).wait().any()
        assert s.pull(slice(None)).wait()[0].size == 0
        return failures

    tables = table("w"), table("s", kind="sparse"), table("m", width=3)
    assert run(program, *tables, nodes=PLACES[place](4), servers=2).results == [[]]


@pytest.mark.parametrize(
    "keys", [[1, 2**64 - 1], [0, 2**63], np.array([1, 2**64 - 1], np.uint64), (5,), np.arange(3, dtype=np.int8)]
)
def test_keys_may_be_any_integers(keys):
    def program(worker):
        s = worker.table("s")
        s.push(keys, np.ones(len(keys))).wait()
        return s.pull(slice(None)).wait()[0].tolist()

    assert run(program, table("s", kind="sparse"), nodes=[0] * 3).results == [[int(key) for key in keys]]


def test_bounds_of_a_range_may_be_numpy_integers():
    def program(worker):
        w = worker.table("w")
        w.push(slice(np.int64(3), np.int64(5)), [1.0, 1.0]).wait()
        return w.pull(slice(np.int64(2), np.int64(6))).wait().tolist()

    for place in PLACES.values():
        assert run(program, table(), nodes=place(3)).results == [[0.0, 1.0, 1.0, 0.0]]


@everywhere
def test_a_push_that_a_server_has_no_room_for_is_refused_by_name_and_others_go_on(place):
    """Both servers answer; one has room for its part."""

    def program(worker):
        s, w = worker.table("s"), worker.table("w")
        rng = np.random.default_rng(1)
        refusal = r'rank \d refused task \d+, push of [\d,]+ keys to table "s": .* are in use'

        def push_until_full():
            for _ in range(500):
                keys = np.unique(rng.integers(0, 2**64, 500, np.uint64))
                s.push(keys, np.ones(keys.size)).wait()

        with pytest.raises(TaskRefused, match=refusal):
            push_until_full()
        w.push([1], [1.0]).wait()  # replies that come later disturb nobody
        with pytest.raises(TaskRefused):
            worker.settle()
        return w.pull([1]).wait().tolist()

    job = run(
        program,
        table("s", kind="sparse", rows=10),
        table("w"),
        nodes=PLACES[place](4),
        servers=2,
        memory=Memory(server=MB // 2, worker=MB),
    )
    assert job.results == [[1.0]]


def test_a_pull_that_a_server_has_no_room_for_is_refused_and_leaves_nothing_behind():
    def program(worker):
        w = worker.table("w")
        w.push(slice(None), np.ones(ROWS)).wait()
        refusal = r'rank \d refused task \d+, pull of 30,000 keys from table "w": .* in use'
        with pytest.raises(TaskRefused, match=refusal):
            w.pull(np.arange(ROWS)).wait()
        got = w.pull(np.arange(100)).wait().tolist()
        assert worker._fabric.space.used == 0
        return got

    job = run(program, table(rows=ROWS), nodes=[0, 1, 2, 3], servers=2, memory=Memory(server=110_000, worker=MB))
    assert job.results == [[1.0] * 100]


def test_a_key_list_that_is_prepared_once_is_used_many_times():
    def program(worker):
        w = worker.table("w")
        keys = w.keys(np.arange(0, 10_000, 7))
        for _ in range(3):
            w.push(keys, np.ones(keys.array.size))
        worker.settle()
        return float(w.pull(slice(None)).wait().sum())

    assert run(program, table(), nodes=[0, 0, 0, 0], servers=2).results == [3.0 * len(range(0, 10_000, 7))]


def test_a_push_to_a_dead_server_is_waited_for_until_somebody_says_what_becomes_of_it():
    def program(worker):
        while True:
            worker.table("w").push(slice(None), np.ones(10_000)).wait()

    plan = program_plan(program, table(), roles=Roles(servers=2, data_servers=0, workers=1))
    job = SimulatedJob(plan, [0, 1, 2, 3], 1, latency=SLOW)
    job.simulation.kill(2, 0.3)
    job.simulation.cut([0], 0.3, 3.0)  # nobody tells it
    job.run()
    assert job.outcome.exit == "failed"
    assert "rank 2" in job.outcome.reason
    assert job.outcomes[3][:2] == job.outcome[:2]
    assert job.simulation.time > 3.0


def test_a_task_past_its_deadline_says_what_it_is_and_who_has_not_answered():
    def program(worker):
        w = worker.table("w")
        job.simulation.pause(2, worker._fabric.now(), 5.0)
        task = w.push(slice(None), np.ones(10_000))
        with pytest.raises(Deadline) as error:
            task.wait(timeout=2)
        task.wait()
        return str(error.value)

    plan = program_plan(program, table(), roles=Roles(servers=2, data_servers=0, workers=1))
    job = SimulatedJob(plan, [0, 1, 2, 3], 1)
    job.run()
    assert job.results == ['rank 3 waited 2 s for task 1, push of rows [0, 10000) to table "w", from rank 2']


def test_a_push_that_is_sent_twice_is_applied_once():
    def program(worker):
        w = worker.table("w")
        replies = []
        send = worker._fabric.send

        def twice(dest, message):
            send(dest, message)
            if isinstance(message, Push) and not replies:
                replies.append(message)
                send(dest, message)

        worker._fabric.send = twice
        open_tasks = worker._issued._open
        task = w.push([3], [1.0])
        kept = dict(open_tasks)
        task.wait()
        open_tasks.update({time: t for time, t in kept.items() if time not in open_tasks})
        w.pull([3], after=[w.push([4], [1.0])]).wait()
        return w.pull([3, 4]).wait().tolist()

    assert run(program, table(), nodes=[0, 0, 0], delay=0).results == [[1.0, 1.0]]


def test_memory_is_given_back_on_every_side():
    fabrics = {}

    def program(worker):
        w, s = worker.table("w"), worker.table("s")
        fabrics[worker.rank] = worker._fabric
        for _ in range(50):
            w.push(np.arange(0, 10_000, 3), np.ones(3_334))
            s.push(np.arange(100), np.ones(100))
            w.pull(np.arange(0, 10_000, 5)).wait()
            s.pull(slice(None)).wait()
        worker.settle()
        return worker._fabric.space.used

    for place in PLACES.values():
        nodes = place(4)
        once = run(lambda worker: 0, table("w"), table("s", kind="sparse"), nodes=nodes, servers=2)
        job = run(program, table("w"), table("s", kind="sparse"), nodes=nodes, servers=2)
        assert job.results == [0]
        for server in (1, 2):
            assert job.simulation.ranks[server].space.used == once.simulation.ranks[server].space.used
