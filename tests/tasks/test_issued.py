"""Tasks on the side that asks: who sees to their order, the receiver or the caller, and in which order they end."""

import pytest

from mpips.fabric import ArenaFull
from mpips.messages import Call
from mpips.tasks import Task, TaskRefused
from mpips.tasks.lane import Lane
from tests.simulated import PLACES, SimulatedJob, program_plan, run, table
from tests.tasks.ranks import simulate


def sent_by(peer):
    """The calls that a rank sends from now on: (rank, time, after)."""
    sent, send = [], peer.fabric.send

    def note(dest, message):
        if isinstance(message, Call):
            sent.append((dest, message.time, message.after))
        send(dest, message)

    peer.fabric.send = note
    return sent


def test_a_task_is_sent_at_once_when_its_ranks_were_asked_for_what_it_comes_after_too():
    """The receiver sees to the order: three tasks, and not one reply has to be waited for."""

    def program(peer):
        sent = sent_by(peer)
        a = peer.call([1, 2], "hold", "a")
        b = peer.call([2], "do", "b", after=[a])
        c = peer.call([2], "do", "c", after=[a, b])
        at_once = list(sent)
        peer.look()
        finished = [b.finished, c.finished]
        peer.call([1, 2], "release", "a")
        c.wait()
        return at_once, finished

    (at_once, finished), peers = simulate(program)
    assert at_once == [(1, 1, []), (2, 1, []), (2, 2, [1]), (2, 3, [1, 2])]
    assert finished == [False, False]
    assert peers[2].done == ["a", "b", "c"]


@pytest.mark.parametrize(("first", "then"), [([1], [2]), ([1], [1, 2]), ([2], [1, 2, 0])])
def test_the_caller_holds_a_task_back_whose_ranks_know_nothing_of_what_it_comes_after(first, then):
    def program(peer):
        sent = sent_by(peer)
        a = peer.call(first, "hold", "a")
        b = peer.call(then, "do", "b", after=[a])
        peer.look()
        held = len(sent), b.sent
        peer.call(first, "release", "a")
        b.wait()
        return held, sent[-1]

    (held, last), peers = simulate(program)
    assert held == (1, False)
    assert last == (then[-1], 3, [])
    assert all(peers[rank].done[-1] == "b" for rank in then)


def test_a_task_waits_for_the_subtasks_of_what_it_comes_after_which_the_receiver_does_not_know():
    def program(peer):
        a = peer.call([1], "do", "a")
        a.include(peer.call([2], "hold", "part of a"))
        b = peer.call([1], "do", "b", after=[a])
        peer.look()
        early = list(a.peers), b.sent
        peer.call([2], "release", "part of a")
        b.wait()
        return early

    early, peers = simulate(program)
    assert early == ([], False)
    assert peers[1].done == ["a", "b"]


def test_a_failed_task_fails_those_after_it_at_the_receiver_and_at_the_caller():
    def program(peer):
        gate = peer.call([1], "hold", "gate")
        bad = peer.call([1], "fail", "no fuel", after=[gate])
        at_receiver = peer.call([1], "do", "b", after=[bad])
        at_caller = peer.call([1, 2], "do", "c", after=[bad])
        nowhere = peer.call([], "do", "d", after=[at_receiver])
        peer.look()
        sent = at_receiver.sent, at_caller.sent
        peer.call([1], "release", "gate")
        texts = []
        for task in (bad, at_receiver, at_caller, nowhere, peer.call([2], "do", "e", after=[bad])):
            with pytest.raises(TaskRefused) as error:
                task.wait()
            texts.append(str(error.value))
        return sent, texts

    (sent, texts), peers = simulate(program)
    assert sent == (True, False)
    assert peers[1].done == ["gate"]
    assert peers[2].done == []
    assert all("no fuel" in text for text in texts)
    assert "it comes after task 2, which failed" in texts[1]
    assert texts[2] == texts[0] == texts[4]


def test_tasks_of_a_lane_are_sent_in_order_even_if_one_of_them_must_wait():
    def program(peer):
        sent, lane = sent_by(peer), Lane()
        gate = peer.call([2], "hold", "gate")
        tasks = []
        for name, after in (("a", []), ("b", [gate]), ("c", []), ("d", [gate])):
            task = Task(peer.issued, name)

            def send(time, after, name=name):
                peer.fabric.send(1, Call(time, after, "do", name))

            def replied(source, message, task=task):
                if peer.issued.received(task, source):
                    task.finish(message.result)

            peer.issued.issue(task, [1], send, after, replied, lane)
            tasks.append(task)
        peer.look()
        early = [task.finished for task in tasks]
        peer.call([2], "release", "gate")
        return early, [task.wait()[1] for task in tasks], sent

    (early, results, sent), peers = simulate(program)
    assert early == [True, False, False, False]
    assert results == ["a", "b", "c", "d"] == peers[1].done
    assert [after for dest, _, after in sent if dest == 1] == [[]] * 4


def test_a_failed_task_of_a_lane_lets_the_others_pass():
    def program(peer):
        lane = Lane()
        bad = peer.call([2], "fail", "no fuel")
        tasks = [Task(peer.issued, name) for name in "ab"]
        for task, after in zip(tasks, ([bad], []), strict=True):
            send = lambda time, after: peer.fabric.send(1, Call(time, after, "do", None))  # noqa: E731
            replied = lambda source, message, task=task: (  # noqa: E731
                peer.issued.received(task, source) and task.finish(message.result)
            )
            peer.issued.issue(task, [1], send, after, replied, lane)
        return tasks[1].wait(), str(tasks[0].error)

    (result, error), _ = simulate(program)
    assert result == [1, None]
    assert "no fuel" in error


def test_whoever_needs_room_in_a_full_arena_waits_for_tasks_that_free_it_even_after_another_task():
    """What comes after a task needs room for itself when that ends: the room of a task that ends later."""

    def program(peer):
        gate = peer.call([1], "hold", "gate")
        got = []
        peer.issued.when(late := Task(peer.issued, "late"), lambda: got.append(peer.issued.room(60_000)), [gate])
        slot = peer.issued.room(60_000)
        user = peer.call([2], "hold", "user of the arena")
        user.on_end(lambda: peer.fabric.space.free(slot))
        peer.call([1], "release", "gate")
        peer.call([2], "release", "user of the arena")
        user.wait()
        peer.look()
        with pytest.raises(ArenaFull):
            peer.issued.room(1 << 20)
        return got, late.sent

    assert simulate(program)[0] == ([0], True)


@pytest.mark.parametrize("place", PLACES)
def test_a_push_a_call_and_a_pull_that_come_after_each_other_leave_in_one_go(place, seed):
    """Between nodes: the server sees to their order, and nothing is waited for in between."""

    def program(worker):
        w, fabric = worker.table("w"), worker._fabric
        before = fabric.sent
        push = w.push([3, 500], [1.0, 2.0])
        scaled = w.call("scale", argument=[10.0], after=[push])
        pull = w.pull([3, 500], after=[scaled])
        at_once = fabric.sent - before
        return at_once, pull.wait().tolist()

    job = run(program, table(), nodes=PLACES[place](3), seed=seed)
    ((at_once, values),) = job.results
    assert values == [10.0, 20.0]
    near = job.view.nodes[1] == job.view.nodes[2]
    assert at_once == (2 if near else 3)  # a pull of this node is a load, which this rank itself must hold back


@pytest.mark.parametrize("first", ["a pull", "a push to another table"])
def test_what_servers_can_not_keep_in_order_when_one_of_them_dies_is_held_back_by_the_worker(first):
    """The pull would be asked of another server, at another time; shards of the other table may move by themselves."""

    def program(worker):
        w, v, fabric = worker.table("w"), worker.table("v"), worker._fabric
        before = fabric.sent
        task = w.pull([3, 500]) if first == "a pull" else v.push([3, 500], [1.0, 2.0])
        push = w.push([3, 500], [1.0, 2.0], after=[task])
        at_once = fabric.sent - before
        push.wait()
        return at_once

    job = run(program, table(), table("v"), nodes=[0, 1, 2])
    assert job.results == [1]


@pytest.mark.parametrize("after", [False, True], ids=["apart", "in a chain"])
def test_a_chain_between_nodes_takes_hardly_longer_than_its_longest_task(after):
    """Every message and every read takes a millisecond."""

    def program(worker):
        w, fabric = worker.table("w"), worker._fabric
        start = fabric.now()
        push = w.push([3], [1.0])
        scaled = w.call("scale", argument=[10.0], after=[push] if after else [])
        w.pull([3], after=[scaled] if after else []).wait()
        return fabric.now() - start

    plan = program_plan(program, table())
    (seconds,) = SimulatedJob(plan, [0, 1, 2], 1, latency=(1e-3, 1e-3)).run().results
    assert 0.004 < seconds < 0.0065  # request, two reads by the server, reply, read of the answer
