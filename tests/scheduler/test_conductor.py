"""What the scheduler's own program may do: issue functions to groups of ranks, in an order, and see their results."""

import numpy as np
import pytest

from mpips.tasks import TaskRefused
from mpips.tasks.calls import function
from mpips.views.view import NoSuchGroup, Roles
from tests.simulated import PLACES, SLOW, SimulatedJob, program_plan, rest, table

everywhere = pytest.mark.parametrize("place", PLACES)


@function
def add_gradient(worker, number):
    """Push, and be done when it is applied."""
    return worker.table("w").push([number], [1.0])


@function
def read_row(worker, number):
    """What a row holds, read as a subtask."""
    return worker.table("w").pull([number])


@function
def nothing(role, _):
    """Only reply."""


@function
def crash(worker, number):
    """Fail on the second worker."""
    if worker.index == 1:
        raise ValueError(f"no {number}")
    return number


def conducted(conduct, place="one node", seed=1, program=lambda worker: None, kill=None, **settings):
    """The job of a program of the scheduler, with three workers and two servers."""
    roles = Roles(servers=2, data_servers=0, workers=3)
    plan = program_plan(program, table(), roles=roles, conduct=conduct, **settings)
    job = SimulatedJob(plan, PLACES[place](6), seed, latency=SLOW)
    if kill is not None:
        job.simulation.kill(job.view.group(kill)[-1], 0.3)
    return job.run()


@everywhere
def test_every_rank_has_done_its_own_part_of_what_a_task_comes_after(place, seed):
    """Who waits for a task knows of all parts; who lets another come after it, only of those of the same rank."""

    def conduct(conductor):
        reads, waited = [], []
        for number in range(5):
            push = conductor.call("workers", "add_gradient", number)
            reads.append(conductor.call("workers", "read_row", number, after=[push]))
        for number in range(5, 8):
            conductor.call("workers", "add_gradient", number).wait()
            waited.append(conductor.call("workers", "read_row", number).wait())
        return [task.wait() for task in reads], waited

    reads, waited = conducted(conduct, place, seed).outcome.conducted
    assert all(1.0 <= row[0] <= 3.0 for rows in reads for row in rows)
    assert waited == [[[3.0]] * 3] * 3


@everywhere
def test_a_chain_over_the_same_group_leaves_in_one_go(place, seed):
    """The scheduler waits for no reply in between: the workers see to the order."""

    def conduct(conductor):
        fabric = conductor._issued.fabric
        rest(fabric, 0.1)
        before, task = fabric.sent, None
        for number in range(4):
            task = conductor.call("workers", "add_gradient", number, after=[task] if task else [])
        return fabric.sent - before, task.wait()

    assert conducted(conduct, place, seed).outcome.conducted == (12, [None] * 3)


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_the_job_lasts_until_both_programs_have_returned(seconds, seed):
    ends = {}

    def conduct(conductor):
        rest(conductor._issued.fabric, 2.0)
        ends["scheduler"] = conductor._issued.fabric.now()

    def program(worker):
        rest(worker._fabric, seconds)
        ends["worker"] = worker._fabric.now()
        return worker.index

    job = conducted(conduct, seed=seed, program=program)
    assert job.results == [0, 1, 2]
    assert job.simulation.time >= max(ends.values()) > 2.0


def test_tables_are_there_when_it_begins():
    def conduct(conductor):
        return conductor.call("workers", "read_row", 0).wait()

    assert conducted(conduct).outcome.conducted == [[0.0]] * 3


def test_a_function_that_fails_on_one_rank_is_refused_by_this_rank_and_the_program_may_go_on():
    def conduct(conductor):
        with pytest.raises(TaskRefused) as error:
            conductor.call("workers", "crash", 7).wait()
        return str(error.value), conductor.call("workers", "read_row", 0).wait()

    job = conducted(conduct)
    text, rows = job.outcome.conducted
    assert text.startswith(f"rank {job.view.workers[1]} refused task 1")
    assert text.endswith("no 7")
    assert rows == [[0.0]] * 3


def test_a_group_that_there_is_not_is_refused():
    def conduct(conductor):
        with pytest.raises(NoSuchGroup, match='there is no group "everyone"'):
            conductor.call("everyone", "crash")
        return conductor.call("spares", "crash").wait()

    assert conducted(conduct).outcome.conducted == []


@pytest.mark.parametrize("group", ["workers", "servers"])
def test_a_rank_that_dies_while_the_scheduler_waits_for_it_ends_the_job_with_its_name(group):
    def conduct(conductor):
        while True:
            conductor.call(group, "nothing").wait()

    job = conducted(conduct, kill=group, program=lambda worker: worker.idle(lambda: False))
    assert job.outcome.exit == "failed"
    assert f"rank {job.view.group(group)[-1]} " in job.outcome.reason
    assert job.simulation.time < 2.0


def test_an_array_can_not_be_an_argument_and_that_is_said():
    def conduct(conductor):
        with pytest.raises(TypeError, match="ndarray"):
            conductor.call("workers", "crash", np.ones(3))
        return True

    assert conducted(conduct).outcome.conducted is True
