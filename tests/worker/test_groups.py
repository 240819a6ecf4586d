"""Groups of workers over the same tables: one does the job, others do something else until it is over."""

import json

import numpy as np
import pytest

from mpips.algorithms import linear
from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.plan import Group, Plan
from mpips.tasks import TaskRefused
from mpips.tasks.calls import function
from mpips.views.view import Roles
from tests.simulated import PLACES, SLOW, SMALL, SimulatedJob, libsvm, program_plan, rest, table

everywhere = pytest.mark.parametrize("place", PLACES)


def simulate(program, *tables, place="one node", seed=1, workers=2, groups, **settings):
    """A job of one server, some workers, and other groups: programs and their numbers of workers."""
    others = {name: Group(*group) for name, group in groups.items()}
    roles = Roles(servers=1, data_servers=0, workers=workers)
    plan = program_plan(program, *(tables or [table()]), roles=roles, groups=others, **settings)
    ranks = 2 + workers + sum(group.workers for group in others.values())
    return SimulatedJob(plan, PLACES[place](ranks), seed).run()


@function
def whose(role, argument):
    """The kind of rank that is called, and its number."""
    return [type(role).__name__, role.rank]


def for_ever(worker):
    """A program that ends only with the job."""
    worker.idle(lambda: False)


@everywhere
def test_one_group_trains_while_another_reads_the_same_table_and_is_stopped_when_the_first_is_over(place, seed):
    seen, stopped = {0: [], 1: []}, []

    def train(worker):
        w = worker.table("w")
        for _ in range(50):
            w.push([3], [1.0]).wait()
            rest(worker._fabric, 1e-3)
        return worker.index

    def watch(worker):
        w = worker.table("w")
        try:
            while True:
                seen[worker.index].append(float(w.pull([3]).wait()[0]))
                rest(worker._fabric, 1e-3)
        finally:
            stopped.append(worker.index)

    job = simulate(train, place=place, seed=seed, groups={"watchers": (watch, 2)})
    assert job.results == [0, 1]
    assert sorted(stopped) == [0, 1]
    for each in seen.values():
        assert each == sorted(each)
        assert len(set(each)) > 10
        assert each[-1] <= 100.0
    assert {outcome.exit for outcome in job.outcomes} == {"finished"}


@everywhere
def test_the_results_of_other_groups_are_not_those_of_the_job(place, seed):
    job = simulate(
        lambda worker: [worker.group, worker.index, worker.count],
        place=place,
        seed=seed,
        groups={"a": (lambda worker: "not asked for", 1), "b": (for_ever, 3)},
    )
    assert job.results == [["train", 0, 2], ["train", 1, 2]]


def test_a_worker_knows_its_place_in_its_own_group():
    told = {}

    def tell(worker):
        told[worker.rank] = (worker.group, worker.index, worker.count)

    job = simulate(tell, groups={"a": (tell, 1), "b": (tell, 3)})
    for name, ranks in job.view.groups.items():
        assert [told[rank] for rank in ranks] == [(name, index, len(ranks)) for index in range(len(ranks))]
    assert sorted(told) == job.view.workers


def test_a_program_of_another_group_that_fails_ends_the_job_and_says_which():
    def fail(worker):
        raise ValueError("too hot")

    outcome = simulate(for_ever, groups={"a": (fail, 1)}).outcome
    assert outcome.exit == "failed"
    assert "worker 4: ValueError at " in outcome.reason
    assert outcome.reason.endswith("too hot")


@everywhere
def test_sums_are_over_the_own_group_and_the_same_to_the_bit_on_all_its_workers(place, seed):
    """One group has made five sums when another makes its second."""
    kept = {}

    def add_up(worker):
        rng, sums = np.random.default_rng([seed, worker.rank]), []
        for step in range(5):
            if worker.group == "a":
                rest(worker._fabric, 2e-3)
            parts = [float(step), *(rng.normal(size=3) * 10.0 ** rng.integers(-6, 6, 3))]
            kept.setdefault((worker.group, step), {})[worker.index] = parts
            sums.append(worker.sum(*parts).wait())
        found[worker.rank] = sums
        if worker.group == "train":
            worker.idle(lambda: len(found) == 6)

    found = {}
    job = simulate(add_up, place=place, seed=seed, workers=3, groups={"a": (add_up, 2), "b": (add_up, 1)})
    assert job.results == [None] * 3
    for group, ranks in job.view.groups.items():
        for step in range(5):
            parts = kept[group, step]
            expected = [sum(column) for column in zip(*(parts[index] for index in range(len(ranks))), strict=True)]
            assert [found[rank][step] for rank in ranks] == [expected] * len(ranks)


def test_several_sums_may_be_under_way_at_once(seed):
    def program(worker):
        sums = [worker.sum(number * 10 + worker.index) for number in range(10)]
        return [task.wait() for task in reversed(sums)]

    results = simulate(program, seed=seed, groups={}).results
    assert results == [[[number * 20 + 1.0] for number in reversed(range(10))]] * 2


@everywhere
def test_a_group_is_called_by_its_name(place, seed):
    def program(worker):
        names = ("train", "watchers", "workers")
        return [[reply[1] for reply in worker.call(name, "whose").wait()] for name in names]

    job = simulate(program, place=place, seed=seed, groups={"watchers": (for_ever, 2)})
    groups = job.view.groups
    assert job.results[0] == [groups["train"], groups["watchers"], job.view.workers]


def test_steps_of_an_aggregating_table_are_those_of_the_main_group():
    """Another group can't push to it, and the main one need not wait for that."""
    refused = []

    def train(worker):
        w = worker.table("w")
        for _ in range(5):
            w.push([3], [1.0])
        return w.pull([3]).wait().tolist()

    def intrude(worker):
        with pytest.raises(TaskRefused, match="has no place in a sum over the workers") as error:
            worker.table("w").push([3], [100.0]).wait()
        refused.append(str(error.value))
        worker.table("v").push([3], [7.0]).wait()
        for_ever(worker)

    def late(worker):
        worker.idle(lambda: worker.table("v").pull([3]).wait()[0] == 7.0)
        return train(worker)

    tables = table(aggregate=True), table("v")
    assert simulate(late, *tables, groups={"a": (intrude, 1)}, delay=0).results == [[10.0], [10.0]]
    assert len(refused) == 1


def watched_plan(base, name, **settings):
    """A job that trains a model which a group may watch, with the folder `base / name` for its run."""
    libsvm(base / "x.libsvm", 1_000, 100, np.random.default_rng(7))
    return Plan(
        program=lambda worker: linear.train(worker, "w"),
        tables=lambda features: [table(rows=features, rule={"name": "ftrl", "alpha": 0.2, "l1": 0.1})],
        data=DataSpec(format="libsvm", files=("x.libsvm",), batch=50, test=TestSplit(every=5)),
        base=base,
        roles=Roles(servers=1, data_servers=1, workers=2),
        passes=6,
        delay=0,
        model="w",
        memory=SMALL,
        threads=1,
        run=base / name,
        **settings,
    )


def watchers(count):
    return {"watch": Group(lambda worker: linear.watch(worker, "w"), count)}


def events_of(base, name):
    return [json.loads(line) for line in (base / name / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("place", ["one node", "nodes of their own"])
def test_a_group_that_watches_logs_what_the_live_model_is_worth(place, tmp_path):
    """And changes nothing: the model is that of the job without it."""
    alone = SimulatedJob(watched_plan(tmp_path, "alone"), PLACES[place](5), 1, latency=SLOW).run()
    plan = watched_plan(tmp_path, "watched", groups=watchers(1))
    watched = SimulatedJob(plan, PLACES[place](6), 2, latency=SLOW).run()
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("alone", "watched")]
    assert alone.results == [None, None]
    assert watched.results == [None, None]
    assert results[0]["metrics"]["logloss"] == results[1]["metrics"]["logloss"]
    assert results[0]["examples"] == results[1]["examples"] == 6 * 800
    rounds = [event for event in events_of(tmp_path, "watched") if event["event"] == "live evaluation"]
    assert [event["round"] for event in rounds] == list(range(1, len(rounds) + 1))
    assert len(rounds) >= 3
    assert {(event["group"], event["rows"]) for event in rounds} == {("watch", 200)}
    assert rounds[0]["logloss"] > rounds[-1]["logloss"]
    assert rounds[-1]["logloss"] == pytest.approx(results[1]["metrics"]["logloss"], rel=0.2)


@pytest.mark.parametrize("count", [1, 2])
def test_a_job_goes_on_without_a_worker_that_only_watches(count, tmp_path, seed):
    """Nobody takes its place; the log says so, and that nothing is missing."""
    plan = watched_plan(tmp_path, "lost", groups=watchers(count))
    job = SimulatedJob(plan, PLACES["one node"](5 + count), seed, latency=SLOW)
    victim = job.view.groups["watch"][0]
    job.simulation.kill(victim, 0.3)
    job.run()
    assert job.results == [None, None]
    events = events_of(tmp_path, "lost")
    said = {event["stage"]: event["text"] for event in events if event["event"] == "recovery"}
    assert said["view"] == f'the group "watch" {"is gone" if count == 1 else "goes on without it"}'
    assert "whole" in said
    lost = next(i for i, event in enumerate(events) if event["event"] == "lost")
    assert any(event["event"] == "live evaluation" for event in events[:lost])
    after = [event for event in events[lost:] if event["event"] == "live evaluation"]
    assert bool(after) is (count == 2)
    assert {event["rows"] for event in after} <= {200}
