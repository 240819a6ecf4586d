"""A task: when it is finished, how it fails, what it comes after, what it says when it is late."""

import re

import pytest

from mpips.fabric import Deadline, PeerLost
from mpips.tasks import Task, TaskCycle, TaskRefused, UnknownTask
from mpips.tasks.lane import Lane
from tests.tasks.ranks import simulate


def queued(peer, lane, rank, what, after=()):
    """A task of a lane, which `received` must end."""
    task = Task(peer.issued, what)
    peer.issued.issue(task, [rank], lambda time, after: None, after, lane=lane)
    return task


def test_a_task_is_finished_when_its_last_reply_is_there():
    def program(peer):
        task = peer.call([1, 2], "hold", "a")
        peer.look()
        states = [(task.finished, sorted(task.peers))]
        peer.call([1], "release", "a")
        peer.look()
        states.append((task.finished, sorted(task.peers)))
        peer.call([2], "release", "a")
        return states, task.wait(), task.done()

    (states, result, done), _ = simulate(program)
    assert states == [(False, [1, 2]), (False, [2])]
    assert result == ["a released", "a released"]
    assert done


def test_a_task_is_finished_when_its_subtasks_are_even_those_that_were_added_while_it_waited_for_others():
    def program(peer):
        task, first = peer.call([1], "do"), peer.call([2], "hold", "first")
        task.include(first)
        peer.look()
        before = (task.peers, task.finished)
        task.include(late := peer.call([1], "hold", "late"))
        peer.call([2], "release", "first")
        first.wait()
        peer.look()
        between = task.finished
        peer.call([1], "release", "late")
        task.wait()
        return before, between, late.finished

    (before, between, late), _ = simulate(program)
    assert before == (set(), False)
    assert not between
    assert late


def test_a_task_whose_replies_are_there_waits_for_its_subtasks_and_for_those_of_these():
    def program(peer):
        task, child, grandchild = peer.call([1], "hold", "a"), peer.call([2], "do"), peer.call([2], "hold", "c")
        child.include(grandchild)
        task.include(child)
        peer.call([1], "release", "a")
        peer.look()
        before = (task.peers, task.finished)
        peer.call([2], "release", "c")
        task.wait()
        return before, child.finished, grandchild.finished

    (before, *finished), _ = simulate(program)
    assert before == (set(), False)
    assert finished == [True, True]


def test_a_task_fails_when_a_subtask_does_and_keeps_its_own_error_when_it_has_one():
    def program(peer):
        for name, text in (("hold", "no fuel"), ("fail", "own trouble")):
            task = peer.call([1], name, "own trouble")
            task.include(peer.call([2], "fail", "no fuel"))
            if name == "hold":
                peer.call([1], "release", "own trouble")
            with pytest.raises(TaskRefused, match=text):
                task.wait()
            with pytest.raises(TaskRefused, match=text):  # every time
                task.wait()
        return task.error is not None

    assert simulate(program)[0]


def test_what_a_peer_refuses_ends_when_the_others_have_answered_and_names_the_peer():
    def program(peer):
        task = peer.call([1, 2], "hold", "a")
        peer.call([1, 2], "do", "b")
        refused = peer.call([1, 2, 0], "fail", "no fuel")
        with pytest.raises(TaskRefused) as error:
            refused.wait()
        peer.call([1, 2], "release", "a")
        task.wait()
        return str(error.value), refused.peers

    (text, missing), _ = simulate(program)
    assert re.fullmatch(r'rank [012] refused task 3, function "fail" on ranks 1, 2, 0: Error: no fuel', text)
    assert missing == set()


def test_a_task_may_come_after_more_until_it_is_sent():
    def program(peer):
        first, second = peer.call([1], "hold", "first"), peer.call([1], "hold", "second")
        task = peer.call([2], "do", "third", after=[first])
        task.come_after(second)
        peer.call([1], "release", "first")
        first.wait()
        peer.look()
        early = task.sent
        peer.call([1], "release", "second")
        task.wait()
        with pytest.raises(RuntimeError, match="is sent already"):
            task.come_after(first)
        with pytest.raises(RuntimeError, match="can't have more subtasks"):
            task.include(first)
        return early

    early, peers = simulate(program)
    assert not early
    assert peers[2].done == ["third"]


def test_a_task_that_was_sent_at_once_can_not_come_after_another():
    def program(peer):
        task, other = peer.call([1], "hold", "a"), peer.call([1], "hold", "b")
        with pytest.raises(RuntimeError, match=r'<task 1, function "hold" on ranks 1> is sent already'):
            task.come_after(other)
        return True

    assert simulate(program)[0]


def test_a_ring_of_tasks_is_refused_and_its_tasks_are_named():
    def program(peer):
        gate = peer.call([1], "hold", "gate")
        a = peer.call([2], "do", "a", after=[gate])
        b = peer.call([1, 2], "do", "b", after=[a])
        c = peer.call([2], "hold", "c")
        c.include(b)
        with pytest.raises(TaskCycle) as cycle:
            a.come_after(c)
        with pytest.raises(TaskCycle, match="comes after"):
            a.come_after(a)
        with pytest.raises(TaskCycle, match="includes"):
            a.include(b)
        a.come_after(gate)  # what was refused has left no trace
        peer.call([1], "release", "gate")
        a.wait()
        return str(cycle.value)

    text, peers = simulate(program)
    ring = ['function "do" on ranks 2', 'function "hold" on ranks 2', 'function "do" on ranks 1, 2']
    assert text.endswith(": " + " → ".join([*ring, ring[0]]))
    assert peers[2].done == ["c", "a", "b"]


def test_a_ring_over_a_lane_is_a_ring_too():
    """Who is behind another in a lane waits for it."""

    def program(peer):
        lane, gate = Lane(), peer.call([1], "hold", "gate")
        first = queued(peer, lane, 2, "first of the lane", [gate])
        second = queued(peer, lane, 2, "second of the lane")
        third = peer.call([1], "do", "third", after=[second])
        with pytest.raises(TaskCycle) as cycle:
            first.come_after(third)
        return str(cycle.value)

    text, _ = simulate(program)
    assert text.endswith('first of the lane → function "do" on ranks 1 → second of the lane → first of the lane')


def test_a_ring_is_looked_for_without_walking_every_way_to_it():
    """Each of 40 rows of two tasks comes after both of the row before: 2^40 ways."""

    def program(peer):
        gate = peer.call([1], "hold", "gate")
        row = [gate]
        for _ in range(40):
            row = [peer.call([2], "do", after=row) for _ in range(2)]
        last = peer.call([2], "do", after=[gate])
        last.come_after(*row)
        peer.call([1], "release", "gate")
        last.wait()
        return True

    assert simulate(program)[0]


def test_only_tasks_of_the_same_rank_can_be_waited_for():
    def program(peer):
        gate = peer.call([1], "hold", "gate")
        waiting = peer.call([1, 2], "do", "a", after=[gate])
        peer.look()
        (other,) = foreign
        for wrong in (other, "nothing", None):
            for use in (
                lambda wrong=wrong: waiting.come_after(wrong),
                lambda wrong=wrong: gate.include(wrong),
                lambda wrong=wrong: peer.call([1], "do", after=[wrong]),
                lambda wrong=wrong: peer.call([], "do", after=[wrong]),
            ):
                with pytest.raises(UnknownTask, match="rank 0 has issued no such task to come after"):
                    use()
        peer.call([1], "release", "gate")
        waiting.wait()
        return True

    foreign = []

    def and_keep(peer):
        peer.call([1], "hold", "foreign")
        peer.look()
        return peer

    _, peers = simulate(and_keep)
    foreign.append(peers[1].held["foreign"])
    assert simulate(program)[0]


# --- deadlines and deaths -------------------------------------------------------------------------------------------


def late(task):
    with pytest.raises(Deadline) as error:
        task.wait(timeout=0.5)
    return str(error.value)


def test_the_deadline_names_the_task_and_the_ranks_whose_reply_is_missing():
    def program(peer):
        task = peer.call([1, 2], "hold", "a")
        both = late(task)
        peer.call([1], "release", "a").wait()
        return both, late(task)

    (both, one), _ = simulate(program)
    assert both == 'rank 0 waited 0.5 s for task 1, function "hold" on ranks 1, 2, from rank 1, 2'
    assert one.endswith("from rank 2")


def test_the_deadline_names_the_task_that_must_come_first():
    def program(peer):
        first = peer.call([1], "hold", "a")
        second = peer.call([2], "do", "b", after=[first])
        third = peer.call([1], "do", "c", after=[second])
        return late(third)

    text, _ = simulate(program)
    assert text.endswith(
        'what task 0, function "do" on ranks 2, comes after: task 1, function "hold" on ranks 1, from rank 1'
    )
    assert 'what task 0, function "do" on ranks 1, comes after:' in text


def test_the_deadline_names_the_subtask_that_is_missing():
    def program(peer):
        task = peer.call([1], "do", "a")
        task.include(peer.call([2], "hold", "b"))
        return late(task)

    text, _ = simulate(program)
    assert text.endswith(
        'the subtask of task 1, function "do" on ranks 1: task 2, function "hold" on ranks 2, from rank 2'
    )


def test_the_deadline_names_the_task_that_is_before_it_in_a_lane():
    def program(peer):
        lane = Lane()
        queued(peer, lane, 2, "first of the lane", [peer.call([1], "hold", "gate")])
        return late(queued(peer, lane, 2, "second of the lane"))

    text, _ = simulate(program)
    assert "second of the lane" in text
    assert "first of the lane" in text
    assert text.endswith("from rank 1")


@pytest.mark.parametrize("how", ["reply", "predecessor", "subtask", "lane"])
def test_a_task_ends_soon_when_the_rank_that_it_needs_is_dead(how):
    """And not at its deadline."""

    def program(peer):
        needed = peer.call([1], "hold", "a")
        if how == "predecessor":
            needed = peer.call([2], "do", "b", after=[needed])
        elif how == "subtask":
            child, needed = needed, peer.call([2], "do", "b")
            needed.include(child)
        elif how == "lane":
            lane = Lane()
            queued(peer, lane, 2, "first", [needed])
            needed = queued(peer, lane, 2, "second")
        with pytest.raises(PeerLost, match="rank 1 is dead"):
            needed.wait()
        return peer.fabric.now()

    now, _ = simulate(program, kill=(1, 0.1))
    assert now < 1.0


@pytest.mark.parametrize("rank", [1, 2], ids=["of the receiver", "of the caller"])
@pytest.mark.parametrize("end", ["release", "fail"])
def test_a_chain_of_thousands_of_tasks_ends(rank, end):
    """Each after the one before: at the receiver, or held back by the caller since they go to two ranks in turn."""

    def program(peer):
        ranks = range(1, rank + 1)
        task = gate = peer.call(ranks, "hold", "gate")
        if end == "fail":
            task = peer.call(ranks, "fail", "no fuel", after=[gate])
        for number in range(3_000):
            task = peer.call([1 + number % rank], "do", number, after=[task])
        peer.call(ranks, "release", "gate")
        if end == "release":
            return task.wait()
        with pytest.raises(TaskRefused, match="no fuel"):
            task.wait()
        return None

    result, peers = simulate(program)
    done = [name for peer in peers[1:] for name in peer.done if name != "gate"]
    assert len(done) == (3_000 if end == "release" else 0)
    assert end == "fail" or result == [[1 + 2_999 % rank, 2_999]]


def test_a_long_queue_of_tasks_that_need_no_message_ends():
    """Functions called on nobody: they are finished with what they come after."""

    def program(peer):
        task = gate = peer.call([1], "hold", "gate")
        for _ in range(3_000):
            task = peer.call([], "do", after=[task])
        peer.call([1], "release", "gate")
        text = task.wait()
        return text, gate.finished

    assert simulate(program)[0] == ([], True)
