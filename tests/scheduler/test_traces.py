"""Which keys servers are told to trace: the plan's, and those that somebody asks for."""

from pathlib import Path

import pytest

from mpips import messages as m
from mpips.plan import Plan
from mpips.scheduler.effects import Answer, Effects, Log, Send
from mpips.scheduler.traces import MOST, Traces
from tests.simulated import program_plan, table

DENSE, SPARSE = table("d", rows=100), table("s", kind="sparse")
SERVERS = [1, 2]


class Made:
    """The traces of a job, and what has followed."""

    def __init__(self, plan: Plan, named=None) -> None:
        self._effects = Effects()
        self.traces = Traces(plan, self._effects)
        if named is not None:
            self.traces.begin([DENSE, SPARSE], named)

    def new(self):
        wanted, self._effects.wanted = self._effects.wanted, []
        return wanted

    def ask(self, name, table, keys, stop=False):
        self.traces.ask(name, table, keys, stop, SERVERS)
        return self.new()


def plan(trace=None, run=Path("run")):
    return program_plan(lambda worker: None, run=run, trace=trace or {})


def test_the_keys_of_the_plan_are_traced_from_the_start_by_number_and_by_name():
    made = Made(plan({"d": [7, "carrier=UA", 3, 3], "s": [2**64 - 1]}), {"carrier=UA": 50})
    assert made.traces.keys == {"d": [3, 7, 50], "s": [2**64 - 1]}
    assert made.new() == [
        Log({"event": "trace", "table": "d", "keys": [3, 7, 50], "rows": 100}),
        Log({"event": "trace", "table": "s", "keys": [2**64 - 1], "rows": None}),
    ]


@pytest.mark.parametrize(
    ("trace", "said", "left"),
    [
        ({"d": [3, "carrier=UA"]}, "the data have no feature carrier=UA", {"d": [3]}),
        ({"d": [3, 100]}, 'table "d" has keys from 0 to 99, not 100', {"d": [3]}),
        ({"x": [3]}, 'there is no table "x"; there are: d, s', {}),
        ({"s": list(range(MOST + 1))}, f"more than {MOST} keys of a table", {"s": list(range(MOST))}),
    ],
)
def test_what_of_the_plan_can_not_be_traced_is_said_and_the_job_goes_on(trace, said, left):
    made = Made(plan(trace), {})
    assert made.traces.keys == left
    assert any(said in effect.event.get("text", "") for effect in made.new())


def test_a_job_without_a_run_folder_traces_nothing():
    assert Made(plan({"d": [3]}, run=None), {}).traces.keys == {}


def test_all_servers_are_told_what_somebody_asks_for_and_what_is_traced_already():
    made = Made(plan({"d": [7]}), {})
    made.new()
    log, *sends, answer = made.ask("trace-1", "s", [9, 2])
    assert log == Log({"event": "trace", "table": "s", "keys": [2, 9], "rows": None})
    assert sends == [Send(server, m.Trace({"d": [7], "s": [2, 9]})) for server in SERVERS]
    assert answer == Answer("trace-1", "done", 'table "s": 2 keys are traced now')
    *_, answer = made.ask("trace-2", "d", [8, 7])
    assert made.traces.keys == {"d": [7, 8], "s": [2, 9]}


def test_tracing_ends_when_somebody_asks_for_that():
    made = Made(plan({"d": [7, 8]}), {})
    assert made.ask("trace-1", "d", [8, 9], stop=True)[-1].text == 'table "d": 1 key is traced now'
    assert made.ask("trace-2", "d", [7], stop=True)[-1].text == 'table "d": no keys are traced now'
    assert made.traces.keys == {"d": []}


def test_a_request_counts_once():
    made = Made(plan(), {})
    assert made.ask("trace-1", "d", [8])
    assert made.ask("trace-1", "d", [8]) == []


@pytest.mark.parametrize(
    ("table", "keys", "reason"),
    [
        ("w", [1], 'there is no table "w"; there are: d, s'),
        ("d", [1, 100], 'table "d" has keys from 0 to 99, not 100'),
        ("s", [2**64], f"not {2**64}"),
        ("s", list(range(MOST)), f"more than {MOST} keys"),
    ],
)
def test_what_can_not_be_traced_is_refused_and_nothing_changes(table, keys, reason):
    made = Made(plan({"s": [5_000]}), {})
    made.new()
    (answer,) = made.ask("trace-1", table, keys)
    assert answer.stage == "refused"
    assert reason in answer.text
    assert made.traces.keys == {"s": [5_000]}


def test_before_there_are_tables_nothing_can_be_asked():
    (answer,) = Made(plan()).ask("trace-1", "d", [1])
    assert (answer.stage, answer.text) == ("refused", "there are no tables yet")
