"""The steps of pushes: a server applies a push whose step is later than all before, once for each identity."""

from hypothesis import given
from hypothesis import strategies as st

from mpips.worker.steps import Steps, spelled


def batch(steps, identity, counter, pushes=3):
    steps.begin_batch(identity, counter)
    made = [steps.next() for _ in range(pushes)]
    steps.end_batch()
    return made


def test_a_batch_done_again_by_another_worker_makes_the_same_steps():
    first, other = Steps(4), Steps(5)
    batch(other, 5, 1)
    assert batch(first, 4, 7) == batch(other, 4, 7)


@given(st.lists(st.tuples(st.sampled_from([4, 4, 5]), st.integers(0, 4)), max_size=20))
def test_every_push_of_an_identity_comes_after_those_before_it(course):
    steps, counters, made = Steps(4), {4: 0, 5: 0}, []
    for identity, pushes in course:
        counters[identity] += 1
        made += batch(steps, identity, counters[identity], pushes)
        made.append(steps.next())  # of no batch
    for identity in (4, 5):
        own = [step.number for step in made if step.identity == identity]
        assert own == sorted(set(own))
    assert all(step.number < 1 << 63 for step in made)


def test_a_push_after_batches_that_another_worker_has_done_comes_after_theirs():
    steps, other = Steps(4), Steps(5)
    batch(steps, 4, 1, 1)
    steps.pass_by(4, 3)
    theirs = batch(other, 4, 3, 1000)[-1]
    assert steps.next() > theirs
    assert batch(steps, 4, 4)[0] > theirs


def test_a_batch_that_is_under_way_when_it_is_passed_by_keeps_its_steps():
    steps, other = Steps(4), Steps(5)
    steps.begin_batch(4, 2)
    made = [steps.next()]
    steps.pass_by(4, 5)
    made.append(steps.next())
    assert made == batch(other, 4, 2, 2)
    steps.end_batch()
    assert steps.next().number > batch(other, 4, 5, 9)[-1].number


def test_pushes_without_any_batch_are_numbered_from_one():
    steps = Steps(4)
    assert [steps.next() for _ in range(3)] == [(4, 1, 0), (4, 2, 0), (4, 3, 0)]


def test_a_batch_belongs_before_or_after_a_cut_as_it_was_handed_out_and_all_else_as_the_worker_has_crossed_it():
    steps = Steps(4)
    steps.cross(3)
    steps.begin_batch(4, 1, 2)
    assert steps.next().cut == 2
    steps.end_batch()
    assert steps.next().cut == 3
    steps.begin_batch(5, 1, 7)
    assert steps.next().cut == 7
    steps.end_batch()
    assert steps.next().cut == 7


def test_a_person_reads_the_batch_and_the_push_in_a_step():
    steps = Steps(4)
    assert [spelled(steps.next().number) for _ in range(2)] == ["1", "2"]
    assert [spelled(made.number) for made in batch(steps, 4, 7, 2)] == ["7.1", "7.2"]
    assert spelled(steps.next().number) == "7+1"
