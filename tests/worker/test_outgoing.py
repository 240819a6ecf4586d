"""Pushes and pulls through a table's filters: what they promise holds near and far, and what is sent is counted."""

import json

import numpy as np
import pytest

from mpips.fabric import ArenaFull
from mpips.messages import KeysGiven, KeysWanted, Pull, Push, Traffic
from mpips.plan import MB, Memory
from mpips.tasks import TaskRefused
from mpips.views.view import Roles
from mpips.worker.forgotten import STRETCH
from tests.simulated import PLACES, SimulatedJob, program_plan, rest, table

ROWS = 2_000
WIDE = (1e-6, 2e-3)
everywhere = pytest.mark.parametrize("place", PLACES)
KEY_CACHE, ZEROS, COMPRESSION = {"name": "key_cache"}, {"name": "zeros"}, {"name": "compression"}
HALF = {"name": "significance", "absolute": 0.5}
CHANGES = {"name": "significance"}  # of a pull: what did not change is not told
EXACT = {
    "key_cache": ([KEY_CACHE], [KEY_CACHE]),
    "zeros": ([ZEROS], [ZEROS]),
    "compression": ([COMPRESSION], [COMPRESSION]),
    "significance of pulls": ([], [CHANGES]),
    "all": ([ZEROS, KEY_CACHE, COMPRESSION], [CHANGES, KEY_CACHE, COMPRESSION]),
}


def job(program, *tables, place="nodes of their own", seed=1, workers=1, servers=2, **settings):
    """A job whose messages and reads overtake each other by far."""
    roles = Roles(servers=servers, data_servers=0, workers=workers)
    plan = program_plan(program, *tables, roles=roles, **settings)
    return SimulatedJob(plan, PLACES[place](1 + servers + workers), seed, latency=WIDE).run()


def some_keys(rng, kind, n=300):
    """Sorted keys, some of which come again and again."""
    if rng.random() < 0.5:
        rng = np.random.default_rng(int(rng.integers(3)))
    if kind == "dense":
        return np.sort(rng.choice(ROWS, n, replace=False)).astype(np.uint64)
    return np.unique(rng.integers(0, 2**64, n, np.uint64))


@everywhere
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("filters", EXACT)
def test_filters_that_lose_nothing_change_nothing(filters, width, kind, place, seed):
    """Many pushes and pulls are under way at once."""
    push_filters, pull_filters = EXACT[filters]

    def program(worker):
        w, rng = worker.table("w"), np.random.default_rng(seed)
        expected, pulls = {}, []
        for _ in range(25):
            keys = some_keys(rng, kind)
            values = rng.integers(-2, 3, (keys.size, width)).astype(np.float32)
            push = w.push(keys, values[:, 0] if width == 1 else values)
            for key, value in zip(keys.tolist(), values, strict=True):
                expected[key] = expected.get(key, 0) + value
            asked = some_keys(rng, kind)
            wanted = np.array([expected.get(key, np.zeros(width)) for key in asked.tolist()], np.float32)
            if rng.random() < 0.3:
                pulls.append((w.pull(asked, after=[push]), wanted))
            else:
                w.pull(asked)  # it need not be waited for
        for pull, wanted in pulls:
            got = pull.wait().reshape(wanted.shape)
            assert np.isfinite(got).all()
        worker.settle()
        known = np.array(sorted(expected), np.uint64)
        got = w.pull(known).wait().reshape(known.size, width)
        rest(worker._fabric, 10 * WIDE[1])  # what was taken is said
        return np.array_equal(got, np.array([expected[key] for key in known.tolist()]))

    spec = table(kind=kind, rows=ROWS, width=width, push_filters=push_filters, pull_filters=pull_filters)
    done = job(program, spec, place=place, seed=seed)
    assert done.results == [True]
    assert_nothing_is_left(done)


def assert_nothing_is_left(done):
    """Every arena is as it was at the beginning of the program: workers' empty, servers' with their shards alone."""
    for rank in done.view.workers:
        assert done.simulation.ranks[rank].space.used in (0, STRETCH)
    for server in done.servers.values():
        assert server._answers.waiting() == []


@everywhere
def test_pushes_that_are_not_significant_wait_until_they_are(place, seed):
    """Also within a node: this filter is about staleness as much as about bytes."""

    def program(worker):
        w, seen = worker.table("w"), []
        for _ in range(7):
            w.push([3, 1_900], [0.2, 4.0]).wait()
            seen.append(w.pull([3, 1_900]).wait().round(3).tolist())
        return seen

    (seen,) = job(program, table(rows=ROWS, push_filters=[HALF]), place=place, seed=seed).results
    assert [each[0] for each in seen] == pytest.approx([0, 0, 0.6, 0.6, 0.6, 1.2, 1.2], abs=1e-3)
    assert [each[1] for each in seen] == pytest.approx([4.0 * step for step in range(1, 8)])


@everywhere
def test_a_pull_through_a_filter_is_never_further_off_than_its_limit(place, seed):
    def program(worker):
        w, rng, worst = worker.table("w"), np.random.default_rng(seed), 0.0
        keys, truth = np.arange(0, ROWS, 7), np.zeros(ROWS, np.float32)
        for _ in range(30):
            update = rng.normal(size=keys.size).astype(np.float32) * np.float32(0.2)
            w.push(keys, update).wait()
            truth[keys] += update
            asked = np.sort(rng.choice(ROWS, 500, replace=False))
            worst = max(worst, float(np.abs(w.pull(asked).wait() - truth[asked]).max()))
        return worst

    (worst,) = job(program, table(rows=ROWS, pull_filters=[HALF]), place=place, seed=seed).results
    assert worst <= 0.5 + 1e-4
    far = place == "nodes of their own"
    assert worst > 0.1 or not far


def test_pulls_whose_answers_are_read_in_another_order_than_they_were_sent_are_still_decoded_in_order(seed):
    """A filter of changes counts on what was told before."""

    def program(worker):
        w = worker.table("w")
        w.push(range(ROWS), np.arange(ROWS, dtype=np.float32)).wait()
        keys = np.arange(ROWS)
        pulls = [w.pull(keys[: 1 + 100 * (number % 20)]) for number in range(60)]
        return all(np.array_equal(pull.wait(), np.arange(len(pull.wait()))) for pull in pulls)

    assert job(program, table(rows=ROWS, pull_filters=[CHANGES]), seed=seed).results == [True]


def test_a_pull_that_was_refused_does_not_disturb_those_that_follow():
    """The server had encoded its answer already when it found no room for it."""

    def program(worker):
        w = worker.table("w")
        w.push(slice(None), np.ones(30_000)).wait()
        with pytest.raises(TaskRefused, match="in use"):
            w.pull(np.arange(30_000)).wait()
        return [w.pull(np.arange(n)).wait().tolist() == [1.0] * n for n in (100, 200, 100)]

    spec = table(rows=30_000, pull_filters=[CHANGES])
    memory = Memory(server=200_000, worker=MB)
    assert job(program, spec, servers=1, memory=memory).results == [[True] * 3]


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_a_list_of_keys_travels_once(direction, seed):
    spec = table(rows=ROWS, **{f"{direction}_filters": [KEY_CACHE]})

    def program(worker):
        w, keys = worker.table("w"), np.arange(0, ROWS, 2)
        sizes, send = [], worker._fabric.send

        def note(dest, message):
            if isinstance(message, Push if direction == "push" else Pull):
                sizes.append(message.coded.keys)
            send(dest, message)

        worker._fabric.send = note
        for _ in range(4):
            (w.push(keys, np.ones(keys.size)) if direction == "push" else w.pull(keys)).wait()
        return sizes

    assert job(program, spec, servers=1, seed=seed).results == [[8 * ROWS // 2, 0, 0, 0]]


def test_keys_that_a_server_has_forgotten_get_there_though_the_arena_is_full():
    def program(worker):
        w, keys = worker.table("w"), np.arange(2_000)
        w.push(keys, np.ones(keys.size)).wait()
        for server in simulated.servers.values():
            for chain in server._incoming._chains.values():
                chain["key_cache"]._lists.clear()
        for _ in range(10):
            w.push(keys, np.ones(keys.size))
        worker.settle()
        return w.pull(keys).wait().tolist() == [11.0] * keys.size

    memory = Memory(server=4 * MB, worker=40_000)
    plan = program_plan(
        program, table(rows=ROWS, push_filters=[KEY_CACHE]), roles=Roles(servers=1, workers=1), memory=memory
    )
    simulated = SimulatedJob(plan, [0, 1, 2], 1)
    assert simulated.run().results == [True]


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_server_that_has_forgotten_its_key_lists_asks_for_them_again(kind, seed):
    """It forgets all of them, again and again, while pushes and pulls are under way."""
    spec = table(rows=ROWS, kind=kind, push_filters=[KEY_CACHE], pull_filters=[KEY_CACHE])
    asked, given = [], []

    def forget():
        for server in simulated.servers.values():
            for (_, _, direction), chain in server._incoming._chains.items():
                if direction != "pull":
                    cache = chain["key_cache"]
                    cache._lists.clear()
                    cache._used = 0

    def program(worker):
        w, rng, expected = worker.table("w"), np.random.default_rng(seed), {}
        send = worker._fabric.send

        def note(dest, message):
            if isinstance(message, KeysGiven):
                given.append(message.count)
            send(dest, message)

        worker._fabric.send = note
        handler = worker._fabric._handlers[KeysWanted]
        worker._fabric.on(
            KeysWanted, lambda source, message: (asked.append(message.direction), handler(source, message))
        )
        lists = [some_keys(np.random.default_rng(number), kind) for number in range(3)]
        for _ in range(40):
            keys = lists[int(rng.integers(3))]
            push = w.push(keys, np.ones(keys.size))
            for key in keys.tolist():
                expected[key] = expected.get(key, 0.0) + 1.0
            w.pull(lists[int(rng.integers(3))], after=[push] if rng.random() < 0.5 else [])
            if rng.random() < 0.3:
                push.wait()
                forget()
        worker.settle()
        known = np.array(sorted(expected), np.uint64)
        got = w.pull(known).wait().tolist()
        rest(worker._fabric, 10 * WIDE[1])  # what was taken is said
        return got == [expected[key] for key in known.tolist()]

    roles = Roles(servers=2, data_servers=0, workers=1)
    simulated = SimulatedJob(program_plan(program, spec, roles=roles), [0, 1, 2, 3], seed, latency=WIDE)
    assert simulated.run().results == [True]
    assert set(asked) == {"push", "request"}
    assert len(given) >= len(asked)
    assert_nothing_is_left(simulated)


@everywhere
def test_pushes_and_pulls_through_filters_aggregate_as_they_do_without(place, seed):
    def program(worker):
        w, rng = worker.table("w"), np.random.default_rng([seed, worker.index])
        for _ in range(10):
            keys = np.sort(rng.choice(ROWS, 200, replace=False))
            w.pull(keys).wait()
            w.push(keys, rng.normal(size=200))
        worker.settle()
        return w.pull(range(ROWS)).wait().tobytes()

    filters = {"push_filters": [ZEROS, KEY_CACHE], "pull_filters": [CHANGES, KEY_CACHE]}
    results = [
        job(program, table(rows=ROWS, aggregate=True, **each), place=place, seed=seed, workers=3, delay=0).results
        for each in ({}, filters)
    ]
    assert results[0] == results[1]
    assert len(set(results[0])) == 1


# --- traffic --------------------------------------------------------------------------------------------------------


def traffic_of(push_filters=(), pull_filters=(), place="nodes of their own"):
    """What a worker has counted, and what its servers have, after two pushes and pulls of the same 1,000 keys."""

    def program(worker):
        w, keys = worker.table("w"), np.arange(1_000)
        for _ in range(2):
            w.push(keys, np.r_[np.ones(500), np.zeros(500)]).wait()
            w.pull(keys).wait()
        w.pull(range(500)).wait()
        counted.append(w.traffic())

    counted = []
    spec = table(rows=ROWS, push_filters=list(push_filters), pull_filters=list(pull_filters))
    done = job(program, spec, servers=1, place=place)
    (server,) = done.servers.values()
    return counted[0], server._traffic()


def test_without_filters_every_byte_that_is_sent_to_another_node_is_counted():
    worker, server = traffic_of()
    assert worker == Traffic(raw=2 * 12_000 + 2 * 8_000, sent=2 * 12_000 + 2 * 8_000, saved={}, fetched=2_000)
    assert server == Traffic(raw=2 * 4_000, sent=2 * 4_000)


@pytest.mark.parametrize(("push_filters", "pull_filters"), [([], []), ([ZEROS, KEY_CACHE], [CHANGES])])
def test_within_a_node_nothing_is_counted(push_filters, pull_filters):
    worker, server = traffic_of(push_filters, pull_filters, place="one node")
    assert (worker.raw, worker.sent, worker.fetched) == (0, 0, 0)
    assert (server.raw, server.sent) == (0, 0)


def test_what_each_filter_saves_is_the_difference_between_what_would_be_sent_and_what_is():
    worker, server = traffic_of([ZEROS, KEY_CACHE], [CHANGES, KEY_CACHE])
    assert worker.raw == 2 * 12_000 + 2 * 8_000
    assert worker.raw - worker.sent == sum(worker.saved.values())
    assert worker.saved["zeros"] == pytest.approx(2 * 500 * 12, abs=20)  # notes cost some bytes
    assert worker.saved["key_cache"] == pytest.approx(500 * 8 + 1_000 * 8, abs=50)
    assert server.raw == 2 * 4_000
    assert server.raw - server.sent == sum(server.saved.values())
    # at first 500 of 1,000 rows are as they were, zero or not; the second time the 500 zeros
    assert server.saved["significance"] > 500 * 4 - 400


def test_the_result_of_a_job_adds_the_traffic_of_all_its_ranks_up(tmp_path):
    def program(worker):
        w = worker.table("w")
        w.push(np.arange(100), np.ones(100)).wait()
        w.pull(np.arange(100)).wait()

    job(program, table(rows=ROWS), workers=3, run=tmp_path)
    traffic = json.loads((tmp_path / "result.json").read_text())["traffic"]
    assert traffic["workers"]["sent"] == 3 * (1_200 + 800)


def test_a_push_too_large_for_the_arena_is_refused_and_leaves_the_filters_as_they_were(seed):
    def program(worker):
        w, keys = worker.table("w"), np.arange(ROWS)
        with pytest.raises(ArenaFull):
            w.push(keys, np.ones(ROWS))
        for part in np.split(keys, 8):
            w.push(part, np.ones(part.size)).wait()
        return np.unique(w.pull(range(ROWS)).wait()).tolist()

    spec = table(rows=ROWS, push_filters=[KEY_CACHE])
    memory = Memory(server=4 * MB, worker=8_192)
    assert job(program, spec, memory=memory, seed=seed).results == [[1.0]]
