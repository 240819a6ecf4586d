"""Registered functions on other ranks: their replies in order, their subtasks, and whatever may go wrong in them."""

import numpy as np
import pytest

from mpips.dataserver.spec import DataSpec
from mpips.errors import Error
from mpips.messages import Begin
from mpips.plan import Plan
from mpips.tasks import TaskRefused
from mpips.tasks.calls import FUNCTIONS, function
from mpips.views.view import NoSuchGroup, Roles
from tests.simulated import PLACES, SMALL, SimulatedJob, program_plan, run, table
from tests.tasks.ranks import simulate

everywhere = pytest.mark.parametrize("place", PLACES)


@function
def who(role, argument):
    """The kind of rank that is called, with what it was called with."""
    return [type(role).__name__ if role is not None else "none", getattr(role, "rank", None), argument]


@function
def push_one(worker, keys):
    """Push, as a subtask."""
    return worker.table("w").push(keys, np.ones(len(keys)))


@function
def push_and_read(worker, keys):
    """Two subtasks: a push, and a pull after it."""
    push = worker.table("w").push(keys, np.ones(len(keys)))
    return [push, worker.table("w").pull(keys, after=[push])]


@function
def scan(worker, _):
    """A subtask whose result no message can hold."""
    return worker.table("s").pull(slice(None))


@function
def array(role, _):
    """A reply that no message can hold."""
    return np.ones(3)


@function
def push_wrong_keys(worker, _):
    """A mistake in what is asked for."""
    return worker.table("w").push([5, 3], [1.0, 1.0])


@function
def divide(role, by):
    """A mistake in the function."""
    return 1 / by


@function
def nothing_to_do(role, _):
    """A list without any task is an ordinary reply."""
    return []


def job(program, place="one node", seed=1, servers=2, workers=2, tables=(), **settings):
    """A job of two servers and two workers."""
    nodes = PLACES[place](1 + servers + workers)
    return run(program, *(tables or [table()]), nodes=nodes, servers=servers, workers=workers, seed=seed, **settings)


@everywhere
def test_a_function_is_run_on_every_rank_of_a_group_and_the_replies_come_in_order_of_rank(place, seed):
    def program(worker):
        tasks = [worker.call(group, "who", group) for group in ("servers", "workers", "train", "spares")]
        return [task.wait() for task in tasks]

    done = job(program, place, seed)
    for servers, workers, train, spares in done.results:
        assert [reply[0] for reply in servers] == ["Server"] * 2
        assert workers == [["Worker", rank, "workers"] for rank in done.view.workers]
        assert train == [["Worker", rank, "train"] for rank in done.view.workers]
        assert spares == []


@everywhere
def test_the_schedulers_rank_calls_too_and_the_job_waits_for_its_program(place, seed):
    def conduct(conductor):
        first = conductor.call("servers", "who", 1)
        second = conductor.call("servers", "who", {"a": [1.5, "x", None]}, after=[first])
        return [task.wait() for task in (first, second, conductor.call("workers", "who"))]

    done = job(lambda worker: worker.index, place, seed, conduct=conduct)
    assert done.results == [0, 1]  # they have long returned
    first, second, third = done.outcome.conducted
    assert first == [["Server", None, 1]] * 2
    assert second == [["Server", None, {"a": [1.5, "x", None]}]] * 2
    assert [reply[1] for reply in third] == done.view.workers
    assert all(outcome.conducted is None for outcome in done.outcomes[1:])


def test_a_program_of_the_scheduler_that_fails_ends_the_job_with_its_reason():
    def conduct(conductor):
        conductor.call("servers", "divide", 0).wait()

    outcome = job(lambda worker: worker.idle(lambda: False), conduct=conduct).outcome
    assert outcome.exit == "failed"
    assert 'function "divide" on ranks' in outcome.reason
    assert "ZeroDivisionError" in outcome.reason


def test_a_function_may_be_run_on_data_servers(tmp_path):
    (tmp_path / "x.libsvm").write_text("1 1:1\n0 2:1\n" * 10)
    plan = Plan(
        program=lambda worker: worker.call("data_servers", "who").wait(),
        tables=lambda features: [table(rows=features)],
        data=DataSpec(format="libsvm", files=("x.libsvm",)),
        base=tmp_path,
        roles=Roles(servers=1, data_servers=2, workers=1),
        memory=SMALL,
        threads=1,
    )
    replies = SimulatedJob(plan, [0] * 5, 1).run().results[0]
    assert [reply[0] for reply in replies] == ["DataServer"] * 2


@everywhere
def test_tasks_that_a_function_returns_are_its_subtasks(place, seed):
    """The reply comes when they are finished: a pull after it sees what they pushed."""

    def program(worker):
        if worker.index:
            return None
        w, keys, seen = worker.table("w"), [3, 9_000], []
        for number in range(1, 6):
            replies = worker.call("workers", "push_one", keys).wait()
            seen.append(w.pull(keys).wait().tolist() == [2.0 * number] * 2 and replies == [None, None])
        return seen

    assert job(program, place, seed).results[0] == [True] * 5


@everywhere
def test_the_results_of_several_subtasks_come_in_their_order(place, seed):
    def program(worker):
        return worker.call("train", "push_and_read", [7]).wait() if worker.index == 0 else None

    replies = job(program, place, seed).results[0]
    assert [reply[0] for reply in replies] == [None, None]
    assert {tuple(reply[1]) for reply in replies} <= {(1.0,), (2.0,)}
    assert [2.0] in [reply[1] for reply in replies]


def test_a_worker_that_has_not_begun_yet_runs_no_function_before_it_has_its_tables():
    def program(worker):
        return worker.call("workers", "push_one", [3]).wait() if worker.index == 0 else None

    roles = Roles(servers=1, data_servers=0, workers=2)
    late = SimulatedJob(program_plan(program, table(), roles=roles), [0] * 4, 1)
    scheduler, slow = late.simulation.ranks[0], late.view.workers[1]
    send = scheduler.send

    def hesitate(dest, message):
        if isinstance(message, Begin) and dest == slow:
            late.simulation.at(scheduler.now() + 0.05, lambda: send(dest, message))
        else:
            send(dest, message)

    scheduler.send = hesitate
    assert late.run().results == [[None, None], None]


def test_a_list_without_tasks_is_a_reply():
    assert job(lambda worker: worker.call("servers", "nothing_to_do").wait()).results == [[[], []]] * 2


def refusal(group, name, argument=None, workers=1, **settings):
    """Why the ranks of a group refuse a call; the job goes on."""

    def program(worker):
        with pytest.raises(TaskRefused) as error:
            worker.call(group, name, argument).wait()
        worker.table("w").push([1], [1.0]).wait()
        return str(error.value)

    return job(program, workers=workers, **settings).results[0]


def test_a_function_that_is_not_registered_is_refused_with_the_nearest_name():
    text = refusal("servers", "divde")
    assert 'no function "divde" is registered; did you mean "divide"?' in text
    assert text.startswith("rank ")
    everything = refusal("servers", "qqqqqqqq")
    assert "there are: " in everything
    assert "divide" in everything


def test_an_exception_in_a_function_is_told_to_its_caller_with_its_place():
    assert f"ZeroDivisionError at {__file__}:" in refusal("servers", "divide", 0)


def test_an_error_of_mpips_in_a_function_is_told_without_a_place():
    text = refusal("workers", "push_wrong_keys")
    assert text.endswith('KeyRangeError: table "w": keys must be sorted and unique, but 5 precedes 3')


@pytest.mark.parametrize(("group", "name"), [("servers", "array"), ("workers", "scan")])
def test_a_reply_that_no_message_can_hold_is_refused(group, name):
    text = refusal(group, name, workers=2, tables=[table(), table("s", kind="sparse")])
    assert f'the reply of function "{name}" does not fit into a message' in text
    assert "ndarray" in text


def test_a_subtask_that_fails_fails_the_call():
    def program(peer):
        gate = peer.call([1], "pass_on", [2, "fail", "no fuel"])
        with pytest.raises(TaskRefused) as error:
            gate.wait()
        return str(error.value)

    text, _ = simulate(program)
    assert text.startswith("rank 1 refused task 1")
    assert "rank 2 refused task 1" in text
    assert "no fuel" in text


@function
def pass_on(peer, argument):
    """Call another rank."""
    rank, name, of_that = argument
    return peer.call([rank], name, of_that)


def test_calls_may_call_others_in_turn_and_each_waits_for_the_whole_of_the_next():
    def program(peer):
        task = peer.call([1], "pass_on", [2, "pass_on", [0, "hold", "deep"]])
        peer.look()
        early = task.finished
        peer.call([0], "release", "deep")
        return early, task.wait()

    assert simulate(program)[0] == (False, [[["deep released"]]])


def test_a_call_after_a_call_begins_when_the_subtasks_of_the_first_are_finished():
    def program(peer):
        first = peer.call([1], "pass_on", [2, "hold", "deep"])
        second = peer.call([1], "do", "second", after=[first])
        peer.look()
        early = second.sent, second.finished
        peer.call([2], "release", "deep")
        second.wait()
        return early

    early, peers = simulate(program)
    assert early == (True, False)
    assert peers[1].done == ["second"]


@everywhere
def test_a_rank_may_call_itself(place, seed):
    def program(worker):
        return worker.call("train", "who").wait()[worker.index][1] == worker.rank

    assert job(program, place, seed).results == [True, True]


def test_a_group_that_does_not_exist_is_refused_with_those_that_do():
    def program(worker):
        with pytest.raises(NoSuchGroup) as error:
            worker.call("server", "who")
        return str(error.value)

    assert job(program).results[0] == (
        'there is no group "server"; there are: train, servers, data_servers, workers, spares'
    )


def test_the_decorator_registers_a_function_under_its_name_and_leaves_it_as_it_is():
    def once_only(role, argument):
        raise Error("never called")

    try:
        assert function(once_only) is once_only
        assert FUNCTIONS["once_only"] is once_only
    finally:
        FUNCTIONS.pop("once_only", None)
