"""Sums over a group: complete when every worker's part is in, in the order of the workers whoever comes first."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mpips.messages import Refused, Sum, SumReply
from mpips.scheduler.sums import Sums
from mpips.views.places import Places
from mpips.views.view import Roles, assign

GROUPS = {"train": [5, 3, 8], "watch": [7]}
VIEW = msgspec.structs.replace(
    assign([0] * 9, Roles(servers=1, data_servers=1, workers=3), {"watch": 1}), groups=GROUPS, identities=GROUPS
)


def always(group):
    """A spare may run any program again."""
    return True


def test_a_sum_is_told_to_every_worker_in_answer_to_its_own_task():
    sums = Sums(Places(VIEW), always)
    assert sums.add("train", 3, Sum(11, 1, [1.0, 10.0])) == []
    assert sums.add("train", 5, Sum(12, 1, [2.0, 20.0])) == []
    assert sums.add("train", 8, Sum(13, 1, [4.0, 40.0])) == [
        (5, SumReply(12, [7.0, 70.0])),
        (3, SumReply(11, [7.0, 70.0])),
        (8, SumReply(13, [7.0, 70.0])),
    ]


@given(st.permutations([(worker, number) for worker in GROUPS["train"] for number in (1, 2, 3)]))
def test_the_bits_of_a_sum_do_not_depend_on_who_comes_first(arrival):
    parts = {5: 1.0, 3: 1e16, 8: -1e16}  # in this order 0, in others 1 or 2
    sums, found = Sums(Places(VIEW), always), {}
    for time, (worker, number) in enumerate(arrival):
        for each, reply in sums.add("train", worker, Sum(time, number, [number * parts[worker]])):
            found[each, number] = reply.values
    assert found == {(worker, number): [number * 1.0 + number * 1e16 - number * 1e16] for worker, number in arrival}


def test_groups_do_not_wait_for_each_other():
    sums = Sums(Places(VIEW), always)
    assert sums.add("train", 3, Sum(1, 1, [1.0])) == []
    assert sums.add("watch", 7, Sum(1, 1, [5.0])) == [(7, SumReply(1, [5.0]))]
    assert sums.add("watch", 7, Sum(2, 2, [6.0])) == [(7, SumReply(2, [6.0]))]


def test_a_part_that_comes_twice_counts_once():
    sums = Sums(Places(VIEW), always)
    for _ in range(2):
        assert sums.add("train", 3, Sum(1, 1, [1.0])) == []
    sums.add("train", 5, Sum(1, 1, [1.0]))
    assert sums.add("train", 8, Sum(1, 1, [1.0]))[0][1].values == [3.0]


def test_a_sum_without_numbers_makes_workers_wait_for_each_other():
    sums = Sums(Places(VIEW), always)
    for worker in (8, 3):
        assert sums.add("train", worker, Sum(1, 1, [])) == []
    assert [reply.values for _, reply in sums.add("train", 5, Sum(1, 1, []))] == [[]] * 3


def test_what_is_complete_is_forgotten():
    sums = Sums(Places(VIEW), always)
    for number in range(100):
        for worker in GROUPS["train"]:
            sums.add("train", worker, Sum(number, number, [1.0]))
    assert sums._parts == {}


def test_parts_of_different_sizes_are_refused_and_their_workers_named():
    sums = Sums(Places(VIEW), always)
    sums.add("train", 3, Sum(1, 4, [1.0]))
    sums.add("train", 5, Sum(2, 4, [1.0, 2.0]))
    reason = "1 numbers of worker 3 and 2 numbers of worker 5 can't be added up"
    assert sums.add("train", 8, Sum(3, 4, [1.0])) == [
        (5, Refused(2, reason)),
        (3, Refused(1, reason)),
        (8, Refused(3, reason)),
    ]
    for worker in (3, 5):
        sums.add("train", worker, Sum(4, 5, [1.0]))
    assert sums.add("train", 8, Sum(4, 5, [1.0]))[0] == (5, SumReply(4, [3.0]))


# --- workers that are lost ---


def see(places, **groups):
    """A view in which other workers stand at some places, or nobody does."""
    identities = {
        name: [GROUPS[name][i] for i, worker in enumerate(workers) if worker is not None]
        for name, workers in groups.items()
    }
    living = {name: [worker for worker in workers if worker is not None] for name, workers in groups.items()}
    places.viewed(msgspec.structs.replace(VIEW, groups=living, identities=identities))


def test_a_worker_that_runs_a_program_again_gets_the_sums_of_the_past():
    places = Places(VIEW)
    sums = Sums(places, always)
    for number in (1, 2):
        for worker in GROUPS["train"]:
            sums.add("train", worker, Sum(number, number, [float(worker)]))
    see(places, train=[5, 6, 8], watch=[7])
    assert sums.viewed() == []
    assert sums.add("train", 6, Sum(77, 1, [3.0])) == [(6, SumReply(77, [16.0]))]
    assert sums.add("train", 6, Sum(78, 2, [3.0])) == [(6, SumReply(78, [16.0]))]
    for worker in (5, 6):
        assert sums.add("train", worker, Sum(79, 3, [1.0])) == []
    assert len(sums.add("train", 8, Sum(79, 3, [1.0]))) == 3


def test_a_sum_that_was_refused_is_refused_again():
    places = Places(VIEW)
    sums = Sums(places, always)
    sums.add("train", 3, Sum(1, 1, [1.0]))
    sums.add("train", 5, Sum(2, 1, [1.0, 2.0]))
    told = sums.add("train", 8, Sum(3, 1, [1.0]))[2][1]
    see(places, train=[5, 3, 6], watch=[7])
    assert sums.add("train", 6, Sum(9, 1, [1.0])) == [(6, Refused(9, told.reason))]


def test_the_part_of_a_dead_worker_counts_and_only_the_living_are_told():
    places = Places(VIEW)
    sums = Sums(places, always)
    sums.add("train", 3, Sum(1, 1, [1.0]))
    see(places, train=[5, 6, 8], watch=[7])
    sums.add("train", 5, Sum(2, 1, [2.0]))
    assert sums.add("train", 8, Sum(3, 1, [4.0])) == [(5, SumReply(2, [7.0])), (8, SumReply(3, [7.0]))]
    assert sums.add("train", 6, Sum(4, 1, [1.0])) == [(6, SumReply(4, [7.0]))]  # it comes to the same sum later


def test_a_sum_does_not_wait_for_a_place_that_nobody_has_any_more():
    places = Places(VIEW)
    sums = Sums(places, always)
    sums.add("train", 3, Sum(1, 1, [1.0]))
    sums.add("train", 5, Sum(2, 1, [2.0]))
    see(places, train=[5, 3, None], watch=[7])
    assert sums.viewed() == [(5, SumReply(2, [3.0])), (3, SumReply(1, [3.0]))]


def test_sums_are_forgotten_when_nobody_may_ask_for_them_any_more():
    places, anew = Places(VIEW), {"train", "watch"}
    sums = Sums(places, lambda group: group in anew)
    sums.add("watch", 7, Sum(1, 1, [5.0]))
    for worker in GROUPS["train"]:
        sums.add("train", worker, Sum(1, 1, [1.0]))
    assert sums._past == {"watch": {1: [5.0]}, "train": {1: [3.0]}}
    anew.remove("train")
    sums.viewed()
    assert sums._past == {"watch": {1: [5.0]}}
    for number in (2, 3):
        for worker in GROUPS["train"][:2]:
            assert sums.add("train", worker, Sum(2, number, [1.0])) == []
        assert sums.add("train", 8, Sum(2, number, [2.0]))[2] == (8, SumReply(2, [4.0]))
    assert sums._past == {"watch": {1: [5.0]}}
    see(places, train=[5, 3, 8], watch=[9])
    assert sums.add("watch", 9, Sum(4, 1, [0.0])) == [(9, SumReply(4, [5.0]))]
