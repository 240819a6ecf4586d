"""What a delay promises: the order of pushes, the same bits for 0, never more than it allows, and none for eventual."""

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.algorithms import linear
from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.messages import FromScheduler, Push, PushReply, SetDelay, ToScheduler, WorkDone, Workload, decode
from mpips.plan import Plan
from mpips.tasks import UnknownTask
from mpips.tasks.calls import function
from mpips.views.view import Roles
from tests.simulated import PLACES, SMALL, SimulatedJob, libsvm, program_plan, rest, run, table

ROWS = 4_000
everywhere = pytest.mark.parametrize("place", PLACES)
WIDE = (1e-6, 2e-3)  # seconds: messages overtake each other by far


# --- the order of a worker's pushes ---------------------------------------------------------------------------------


@everywhere
def test_pushes_are_applied_in_order_even_if_one_of_them_must_wait(place, seed):
    """The rule "assign" keeps the last. Some wait for another table's push at the caller, some at the server."""

    def program(worker):
        a, b, rng = worker.table("a"), worker.table("b"), np.random.default_rng(seed)
        others = []
        for number in range(1, 60):
            after = [others[int(rng.integers(len(others)))]] if others and rng.random() < 0.3 else []
            if rng.random() < 0.3:
                others.append(b.push([number, 3_000], [1.0, 1.0]))
            keys = [7, int(rng.integers(1_000, 4_000))] if rng.random() < 0.5 else range(8)
            others.append(a.push(keys, np.full(len(keys), number, "f4"), after))
        worker.settle()
        return float(a.pull([7]).wait()[0])

    tables = table("a", rule={"name": "assign"}), table("b")
    plan = program_plan(program, *tables, roles=Roles(servers=2, data_servers=0, workers=1))
    assert SimulatedJob(plan, PLACES[place](4), seed, latency=WIDE).run().results == [59.0]


@everywhere
@pytest.mark.parametrize("servers", [1, 2])
def test_a_push_that_waits_for_another_worker_is_not_overtaken(servers, place, seed):
    """It comes after a push to a table that aggregates, which is applied when the other worker has pushed, too."""

    def program(worker):
        w, both = worker.table("w"), worker.table("both")
        if worker.index == 1:
            rest(worker._fabric, 0.1)
            both.push(range(ROWS), np.ones(ROWS))
            return None
        waits_for = both.push(range(ROWS), np.ones(ROWS))
        pushes = [w.push([7, 3_000], [1.0, 1.0], after=[waits_for]), w.push(range(ROWS), np.full(ROWS, 2.0))]
        rest(worker._fabric, 0.05)
        early = [not push.finished for push in pushes]
        worker.settle()
        return early, w.pull([7, 8, 3_000]).wait().tolist()

    tables = table("w", rows=ROWS), table("both", rows=ROWS, aggregate=True)
    job = run(program, *tables, nodes=PLACES[place](3 + servers), servers=servers, seed=seed)
    early, values = job.results[0]
    assert early == [True, True]
    assert values == [3.0, 2.0, 3.0]


NOTED: list[tuple[int, int]] = []


@function
def noted(role, number):
    """Note when it was called, and by which number."""
    NOTED.append((id(role), number))


ACTIONS = st.tuples(
    st.sampled_from(["push", "push list", "call", "read", "pull", "pull list", "nothing"]),
    st.integers(0, 1),  # the table, or the group
    st.lists(st.integers(0, 12), max_size=3),  # how far back the tasks are that it comes after
)


@settings(max_examples=30)
@given(st.lists(ACTIONS, max_size=25), st.sampled_from(sorted(PLACES)), st.integers(0, 2**31))
def test_any_graph_of_pushes_calls_and_pulls_ends_in_an_order_that_respects_it(actions, place, seed):
    """Every push assigns its number to row 0, so that whoever reads this row knows the last push before."""
    NOTED.clear()

    def program(worker):
        tables, tasks, after = [worker.table("a"), worker.table("b")], [], []
        for number, (kind, which, back) in enumerate(actions, 1):
            after.append(sorted({number - 1 - steps for steps in back if steps < number - 1}))
            before, w = [tasks[other - 1] for other in after[-1]], tables[which]
            if kind == "push":
                tasks.append(w.push(range(ROWS), np.full(ROWS, number, "f4"), before))
            elif kind == "push list":
                tasks.append(w.push([0, ROWS - 1], [number, number], before))
            elif kind == "call":
                tasks.append(worker.call(("servers", "workers")[which], "noted", number, before))
            elif kind == "read":
                tasks.append(w.call("largest_absolute_value", range(1), after=before))
            elif kind == "pull":
                tasks.append(w.pull(range(ROWS), after=before))
            elif kind == "pull list":
                tasks.append(w.pull([0, ROWS - 1], after=before))
            else:
                tasks.append(w.push([], [], before))
        read = [np.ravel(task.wait()).tolist() for task in tasks]
        worker.settle()
        return after, read, [w.pull([0, ROWS - 1]).wait().tolist() for w in tables]

    tables = [table(name, rows=ROWS, rule={"name": "assign"}) for name in "ab"]
    plan = program_plan(program, *tables, roles=Roles(servers=2, data_servers=0, workers=1))
    ((after, read, at_last),) = SimulatedJob(plan, PLACES[place](4), seed, latency=WIDE).run().results
    pushed = {
        which: [
            number for number, action in enumerate(actions, 1) if action[0].startswith("push") and action[1] == which
        ]
        for which in (0, 1)
    }
    for which, numbers in pushed.items():
        assert at_last[which] == [max(numbers, default=0)] * 2
    for number, (kind, which, _) in enumerate(actions, 1):
        known = [other for other in after[number - 1] if other in pushed[which]]
        if kind in ("read", "pull", "pull list"):
            assert read[number - 1][0] >= max(known, default=0)
            assert read[number - 1][0] in (0, *pushed[which])
        if kind == "call":
            for other in after[number - 1]:
                if actions[other - 1][:2] == (kind, which):
                    for rank in {rank for rank, _ in NOTED}:
                        order = [noted for each, noted in NOTED if each == rank]
                        assert number not in order or order.index(other) < order.index(number)
    calls = [number for number, action in enumerate(actions, 1) if action[0] == "call"]
    assert sorted({number for _, number in NOTED}) == calls


@everywhere
def test_what_can_not_come_after_something_is_refused_and_leaves_nothing_behind(place):
    def program(worker):
        w = worker.table("w")
        for use in (
            lambda: w.push(range(9), np.ones(9), after=["no task"]),
            lambda: w.push([3, 3_000], [1.0, 1.0], after=[None]),
            lambda: w.pull([3, 3_000], after=[w]),
            lambda: w.pull(range(9), after=[w]),
            lambda: w.call("nonzeros", after=["no task"]),
            lambda: worker.call("servers", "noted", after=["no task"]),
        ):
            with pytest.raises(UnknownTask, match="has issued no such task"):
                use()
        assert worker._fabric.space.used == 0
        assert w.unfinished() == []
        return w.pull([3], after=[w.push([3], [1.0])]).wait().tolist()

    assert run(program, table(), nodes=PLACES[place](4), servers=2, delay=0).results == [[1.0]]


# --- sequential: the same bits as one process -----------------------------------------------------------------------


def add(rule, w, g, state):
    return w + g[:, 0]


def adagrad(rule, w, g, state):
    gradient = g[:, 0] + rule["l2"] * w
    state[0] = (state[0] + gradient * gradient).astype(np.float32)
    rate = rule["alpha"] / (rule["beta"] + np.sqrt(state[0].astype(np.float64)))
    stepped = w - rate * gradient
    return np.sign(stepped) * np.maximum(np.abs(stepped) - rate * rule["l1"], 0.0)


def ftrl(rule, w, g, state):
    g = g[:, 0]
    before = np.sqrt(state[0].astype(np.float64))
    state[0] = state[0] + g * g
    after = np.sqrt(state[0].astype(np.float64))
    state[1] = (state[1] + (g - (after - before) / rule["alpha"] * w)).astype(np.float32)
    z = state[1].astype(np.float64)
    moved = -(z - np.sign(z) * rule["l1"]) / ((rule["beta"] + after) / rule["alpha"] + rule["l2"])
    return np.where(np.abs(z) <= rule["l1"], 0.0, moved)


def proximal(rule, w, g, state):
    gradient = g[:, 0].astype(np.float64) + rule["l2"] * w
    curvature = (g[:, 1] + rule["l2"]) / rule["rate"] + 1e-8
    at = w - gradient / curvature
    shrunk = np.abs(at) - rule["l1"] / curvature
    step = np.where(shrunk > 0.0, np.sign(at) * shrunk, 0.0) - w
    radius = np.where(state[0] > 0.0, state[0], rule["trust"])
    step = np.clip(step, -radius, radius)
    state[0] = np.minimum(rule["trust"], 2.0 * np.abs(step) + 0.1).astype(np.float32)
    return w + step


RULES = {
    "add": (add, {}),
    "adagrad": (adagrad, {"alpha": 0.2, "beta": 0.5, "l1": 0.01, "l2": 0.05}),
    "ftrl": (ftrl, {"alpha": 0.2, "beta": 1.0, "l1": 0.1, "l2": 0.1}),
    "proximal": (proximal, {"l1": 0.1, "l2": 0.1, "rate": 0.9, "trust": 5.0}),
}
STEPS, WORKERS, KEYS = 6, 3, 600


def update_of(worker, step, weights, inputs, seed):
    """A worker's update (n, inputs): it depends on the weights, and is of a size where the order of a sum matters."""
    rng = np.random.default_rng([seed, worker, step])
    sizes = 10.0 ** rng.integers(-3, 4, (weights.size, inputs))
    update = (rng.normal(size=(weights.size, inputs)) * sizes).astype(np.float32)
    update[:, 0] += np.float32(0.3) * weights
    if inputs == 2:
        update[:, 1] = np.abs(update[:, 1]) + np.float32(0.5)
    return update


def chosen(worker, step, how, seed):
    """The positions that a worker pushes in a step: the same range for all, or a list of its own."""
    if how == "range":
        lo = (step * 37) % 200
        return np.arange(lo, KEYS - lo)
    return np.sort(np.random.default_rng([seed, 7, worker, step]).choice(KEYS, 250, replace=False))


def in_one_process(name, how, seed):
    """The weights after all steps, (KEYS,), as NumPy has them."""
    function, rule = RULES[name]
    inputs = 2 if name == "proximal" else 1
    rule = {key: np.float64(value) for key, value in rule.items()}
    weights, state = np.zeros(KEYS, np.float32), np.zeros((2, KEYS), np.float32)
    for step in range(STEPS):
        total, pushed = np.zeros((KEYS, inputs), np.float32), np.zeros(KEYS, np.bool_)
        for worker in range(WORKERS):
            at = chosen(worker, step, how, seed)
            update = update_of(worker, step, weights[at], inputs, seed)
            total[at] = np.where(pushed[at, np.newaxis], total[at] + update, update)
            pushed[at] = True
        held = state[:, pushed]
        weights[pushed] = function(rule, weights[pushed], total[pushed], held).astype(np.float32)
        state[:, pushed] = held
    return weights


@everywhere
@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize(("kind", "how"), [("dense", "range"), ("dense", "list"), ("sparse", "list")])
@pytest.mark.parametrize("name", RULES)
def test_without_delay_many_workers_make_the_same_bits_as_one_process(name, kind, how, servers, place, seed):
    inputs = 2 if name == "proximal" else 1
    scattered = np.unique(np.random.default_rng(seed).integers(0, 2**64, 2 * KEYS, np.uint64))[::2]
    keys_of = scattered[:KEYS] if kind == "sparse" else np.arange(KEYS, dtype=np.uint64)

    def program(worker):
        w = worker.table("w")
        for step in range(STEPS):
            at = chosen(worker.index, step, how, seed)
            keys = range(int(at[0]), int(at[-1]) + 1) if how == "range" else keys_of[at]
            weights = w.pull(keys).wait()
            update = update_of(worker.index, step, weights, inputs, seed)
            w.push(keys, update if inputs == 2 else update[:, 0])
        worker.settle()
        return w.pull(keys_of).wait().tobytes()

    spec = table(kind=kind, rows=KEYS, rule={"name": name, **RULES[name][1]}, aggregate=True)
    roles = Roles(servers=servers, data_servers=0, workers=WORKERS)
    plan = program_plan(program, spec, roles=roles, delay=0)
    job = SimulatedJob(plan, PLACES[place](1 + servers + WORKERS), seed, latency=WIDE).run()
    expected = in_one_process(name, how, seed)
    for result in job.results:
        np.testing.assert_array_equal(np.frombuffer(result, np.float32), expected)
    assert np.count_nonzero(expected) > KEYS // 4


def test_the_order_of_a_sum_would_show_in_these_bits(seed):
    """Else the test above could not fail."""
    update = [update_of(worker, 0, np.zeros(KEYS, np.float32), 1, seed) for worker in range(WORKERS)]
    sums = {sum(order, np.float32(0)).tobytes() for order in itertools.permutations(update)}
    assert len(sums) > 1


FEATURES = 200


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", 1_000, FEATURES, np.random.default_rng(7))
    return DataSpec(format="libsvm", files=("x.libsvm",), batch=50, test=TestSplit(every=5)), folder


def training(data, workers, **settings):
    spec, folder = data
    return Plan(
        **{
            "program": lambda worker: linear.train(worker, "w"),
            "tables": lambda features: [table(rows=features, rule={"name": "ftrl", "alpha": 0.2, "l1": 0.1})],
            "data": spec,
            "base": folder,
            "roles": Roles(servers=2, data_servers=1, workers=workers),
            "passes": 3,
            "delay": 0,
            "memory": SMALL,
            "threads": 1,
            **settings,
        }
    )


def bits(job):
    """The model as the servers hold it."""
    assert job.outcome.exit == "finished", job.outcome.reason
    shards = {
        shard: server.tables[0].dense_rows(shard) for server in job.servers.values() for shard in server.tables[0].held
    }
    return b"".join(part.tobytes() for _, parts in sorted(shards.items()) for part in parts)


@everywhere
@pytest.mark.parametrize("workers", [2, 5])
def test_streamed_batches_without_delay_train_many_workers_to_the_same_bits_as_one(data, workers, place, seed):
    alone = SimulatedJob(training(data, 1), [0] * 5, seed + 1).run()
    many = SimulatedJob(training(data, workers), PLACES[place](4 + workers), seed, latency=WIDE).run()
    assert bits(many) == bits(alone)
    loads = [worker for worker in many.view.workers if many.simulation.ranks[worker].sent > 10]
    assert len(loads) > 1  # they did share the work


# --- bounded delay --------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_pull_of_an_aggregating_table_misses_no_more_steps_of_any_worker_than_the_delay(place, delay, seed):
    """Every worker adds 1 in each step: the value is how many pushes of all workers are applied."""

    def program(worker):
        w, rng, seen = worker.table("w"), np.random.default_rng([seed, worker.index]), []
        for step in range(25):
            seen.append(step - float(w.pull([3]).wait()[0]) / worker.count)
            rest(worker._fabric, rng.exponential(2e-4))
            w.push([3], [1.0])
        return seen

    roles = Roles(servers=1, data_servers=0, workers=3)
    plan = program_plan(program, table(aggregate=True), roles=roles, delay=delay)
    seen = SimulatedJob(plan, PLACES[place](5), seed, latency=WIDE).run().results
    assert all(behind.is_integer() for each in seen for behind in each)
    most = max(max(each) for each in seen)
    assert most <= delay
    assert most > 0 or delay == 0  # it is made use of


@everywhere
def test_without_a_bound_no_pull_waits_for_any_push(place, seed):
    """Not even for those of a worker that is far behind."""

    def program(worker):
        w = worker.table("w")
        if worker.index == 1:
            worker.idle(lambda: worker._fabric.now() > 1.0)
        pulled = []
        for _ in range(20):
            w.push([3], [1.0])
            pulled.append(float(w.pull([3]).wait()[0]))
        return worker._fabric.now(), pulled

    (first, second) = run(program, table(aggregate=True), nodes=PLACES[place](4), workers=2, seed=seed).results
    assert first[0] < 0.5
    assert first[1] == [0.0] * 20
    assert second[0] > 1.0


@everywhere
def test_a_delay_that_is_changed_counts_from_the_next_pull_on(place, seed):
    """The other worker pushes nothing until it is told to: all pushes of this one stay unfinished."""

    def program(worker):
        w, go = worker.table("w"), worker.table("go")
        if worker.index == 1:
            worker.idle(lambda: go.pull([0]).wait()[0] > 0)
            for _ in range(6):
                w.push([3], [1.0])
            return None
        waits = []
        for delay in (None, 2, 5, 0, 1, 9):
            w.delay = delay
            if delay is None:
                for _ in range(6):
                    w.push([3], [1.0])
            pull = w.pull([3])
            rest(worker._fabric, 0.05)
            waits.append(not pull.done())
        go.push([0], [1.0]).wait()
        w.delay = 0
        return waits, float(w.pull([3]).wait()[0])

    tables = table(aggregate=True), table("go", rows=1)
    first, _ = run(program, *tables, nodes=PLACES[place](5), workers=2, servers=2, seed=seed).results
    assert first == [[False, True, True, True, True, False], 12.0]


def test_the_scheduler_changes_the_delay_of_workers_that_are_at_work():
    def program(worker):
        w = worker.table("w")
        worker.idle(lambda: w.delay == 4, timeout=5)
        worker.idle(lambda: w.delay is None, timeout=5)
        return True

    job = SimulatedJob(program_plan(program, table(), roles=Roles(servers=1, data_servers=0, workers=2)), [0] * 4, 1)
    for at, delay in ((0.1, 4), (0.5, None)):
        for worker in job.view.workers:
            send = lambda worker=worker, delay=delay: job.simulation.ranks[0].send(worker, SetDelay(delay))  # noqa: E731
            job.simulation.at(at, send)
    assert job.run().results == [True, True]


@everywhere
@pytest.mark.parametrize("delay", [0, 3, 7])
def test_never_more_batches_are_out_than_the_delay_and_one_more(data, delay, place, seed):
    """One of the workers is a hundred times slower."""
    plan = training(data, 3, delay=delay)
    job = SimulatedJob(plan, PLACES[place](7), seed)
    slow = job.view.workers[0]
    job.simulation.pause(slow, 0.001, 0.05)
    out, most = {}, []
    scheduler = job.simulation.ranks[job.view.scheduler]
    send, register, trained = scheduler.send, scheduler.on, []

    def give(dest, message):
        said = decode(message.message) if isinstance(message, FromScheduler) else None
        if isinstance(said, Workload) and said.train:
            out[said.number] = len(said.batches)
            most.append(sum(out.values()))
        send(dest, message)

    def on(kind, handler):
        def done(source, message):
            said = decode(message.message)
            if isinstance(said, WorkDone):
                trained.append(out.pop(said.number, 0))
            handler(source, message)

        register(kind, done if kind is ToScheduler else handler)

    scheduler.send, scheduler.on = give, on
    job.run()
    assert job.outcome.exit == "finished", job.outcome.reason
    assert sum(trained) == 3 * 16
    assert max(most) <= delay + 1
    assert delay > 0 or max(most) == 1


# --- resent pushes --------------------------------------------------------------------------------------------------


def forgiving(worker):
    """Have a worker pass over answers to what it did not ask for: to repetitions that a test has sent."""
    fabric, issued = worker._fabric, worker._issued
    handler = fabric._handlers[PushReply]
    fabric.on(PushReply, lambda source, reply: reply.time in issued._open and handler(source, reply))


@everywhere
@pytest.mark.parametrize("aggregate", [False, True])
def test_pushes_that_are_sent_again_are_applied_once_on_ranges_that_overlap_in_any_way(place, aggregate, seed):
    """Each message again, once or twice, while it is under way or after others."""

    def program(worker):
        w, fabric, rng = worker.table("w"), worker._fabric, np.random.default_rng([seed, worker.index])
        forgiving(worker)
        ranges = np.sort(np.random.default_rng(seed).integers(0, ROWS + 1, (20, 2)), axis=1).tolist()
        send, sent, kept = fabric.send, [], []

        def often(dest, message):
            send(dest, message)
            if isinstance(message, Push):
                sent.append((dest, message))
                for at in rng.integers(0, len(sent), int(rng.integers(0, 3))).tolist():
                    send(*sent[at])

        fabric.send = often
        free = fabric.space.free
        fabric.space.free = kept.append  # a repetition is read from where the push was
        expected = np.zeros(ROWS, np.float32)
        for lo, hi in ranges:
            if lo == hi:
                continue
            values = rng.integers(1, 9, hi - lo).astype(np.float32)
            if rng.random() < 0.5 and not aggregate:
                keys = np.arange(lo, hi)[rng.random(hi - lo) < 0.5]
                w.push(keys, values[: keys.size], within=range(lo, hi))
                expected[keys] += values[: keys.size]
            else:
                w.push(range(lo, hi), values)
                expected[lo:hi] += values
        worker.settle()
        for message in sent:
            send(*message)
        rest(fabric, 0.1)
        for slot in kept:
            free(slot)
        return expected.tolist()

    job = run(program, table(rows=ROWS, aggregate=aggregate), nodes=PLACES[place](5), servers=2, seed=seed)
    whole = np.zeros(ROWS)
    for server in job.servers.values():
        for shard in server.tables[0].held:
            lo, hi = server.tables[0].spec.shard_range(shard)
            whole[lo:hi] = server.tables[0].dense_rows(shard)[0][:, 0]
    np.testing.assert_array_equal(whole, np.sum(job.results, axis=0))
    assert whole.any()


@everywhere
@pytest.mark.parametrize("how", ["range", "list"])
def test_of_a_push_that_was_applied_in_part_only_the_rest_is_applied(place, how, seed):
    """As after a part of a range has moved to another server: there the push is known, here it is not."""

    def program(worker):
        w, fabric = worker.table("w"), worker._fabric
        forgiving(worker)
        send = fabric.send

        def part_first(dest, message):
            if isinstance(message, Push):
                narrow = {"lo": 100, "hi": 300}
                if message.keys is not None:
                    narrow |= {"keys": message.keys + 8 * 100, "values": message.values + 4 * 100, "count": 200}
                else:
                    narrow |= {"values": message.values + 4 * 100, "count": 200}
                send(dest, msgspec.structs.replace(message, time=message.time + 1_000, **narrow))
            send(dest, message)

        fabric.send = part_first
        values = np.arange(1, 501, dtype=np.float32)
        keys = range(500) if how == "range" else np.arange(500)
        push = w.push(keys, values, within=range(500))
        push.wait()
        rest(fabric, 0.1)
        return w.pull(range(501)).wait().tolist() == [*values.tolist(), 0.0]

    assert run(program, table(), nodes=PLACES[place](3), seed=seed).results == [True]


@everywhere
def test_a_clock_keeps_a_range_for_every_block_and_worker_however_many_pushes_there_are(place, seed):
    def program(worker):
        w, rng = worker.table("w"), np.random.default_rng([seed, worker.index])
        for _ in range(100):
            for block in rng.permutation(10).tolist():
                keys = range(block * 400, block * 400 + 400)
                if rng.random() < 0.5:
                    w.push(keys, np.ones(400))
                else:
                    w.push(np.arange(keys.start, keys.stop, 40), np.ones(10), within=keys)
        worker.settle()
        return w.pushes

    job = run(program, table(rows=ROWS), nodes=PLACES[place](6), servers=2, seed=seed)
    assert job.results == [1_000] * 3
    for server in job.servers.values():
        clock = server.tables[0].clock
        assert all(1 < clock.ranges(worker) <= 10 for worker in job.view.workers)
