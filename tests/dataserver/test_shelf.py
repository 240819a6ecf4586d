"""What is lent stays as it is, what is not gives way, oldest first; and in the end everything can be given back."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.dataserver.shelf import Shelf
from mpips.fabric import ArenaFull
from mpips.fabric.sim import Simulation

ARENA = 1 << 12


def shelf_of(size=ARENA):
    fabric = Simulation([0], [size], 1).ranks[0]
    return fabric, Shelf(fabric)


def content(fabric, place):
    offset, size = place
    return fabric.arena[offset : offset + size].tolist()


STEPS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 3), st.sampled_from(["lend", "give back", "forget"])), max_size=80
)


@given(steps=STEPS)
def test_what_a_reader_has_stays_and_what_nobody_reads_gives_way_least_recently_read_first(steps):
    """Blob n is 64 * (1 + n) bytes of n; four readers on two ranks have one blob each at most."""
    fabric, shelf = shelf_of(1_000)
    read, known = {}, OrderedDict()
    for name, mark, action in steps:
        reader = mark % 2, mark
        size = 64 * (1 + name)
        if action == "give back":
            shelf.give_back(reader)
            read.pop(reader, None)
        elif action == "forget":
            shelf.forget(mark % 2)
            read = {other: of for other, of in read.items() if other[0] != mark % 2}
        elif reader not in read:
            gone, in_use = list(known), [of for _, of in read.values()]
            if name not in shelf:
                if not shelf.put(name, size, lambda out, name=name: out.fill(name)):
                    assert all(other not in shelf for other in known if other not in in_use)
                    known = OrderedDict.fromkeys(other for other in known if other in shelf)
                    continue
                known[name] = None
            gone = [other for other in gone if other not in shelf]
            idle = [other for other in known if other not in in_use and other != name]
            assert gone == idle[: len(gone)]
            known = OrderedDict.fromkeys(other for other in known if other not in gone)
            known.move_to_end(name)
            read[reader] = shelf.lend(name, reader), name
            assert read[reader][0][1] == size
        for place, of in read.values():
            assert content(fabric, place) == [of] * 64 * (1 + of)
    for rank in range(2):
        shelf.forget(rank)
    assert shelf.put("all", 1_000 & -64, lambda out: out.fill(0))


def test_a_blob_that_does_not_fit_although_nobody_reads_is_an_error_and_one_that_may_fit_later_is_not():
    _, shelf = shelf_of()
    with pytest.raises(ArenaFull):
        shelf.put("too large", ARENA + 1, lambda out: None)
    assert shelf.put("one", 64, lambda out: None)
    shelf.lend("one", (3, 1))
    assert not shelf.put("other", ARENA, lambda out: None)
    shelf.give_back((3, 1))
    assert shelf.put("other", ARENA, lambda out: None)


def test_a_blob_that_can_not_be_written_leaves_nothing_behind():
    fabric, shelf = shelf_of()

    def fail(out):
        raise ValueError("by hand")

    with pytest.raises(ValueError, match="by hand"):
        shelf.put("one", 64, fail)
    assert "one" not in shelf
    assert fabric.space.used == 0


def test_who_asks_again_has_one_blob_to_give_back():
    fabric, shelf = shelf_of()
    shelf.put("one", ARENA, lambda out: out.fill(1))
    assert shelf.lend("one", (3, 1)) == shelf.lend("one", (3, 1))
    shelf.give_back((3, 1))
    assert shelf.put("other", ARENA, lambda out: out.fill(2))
    assert np.all(fabric.arena == 2)
