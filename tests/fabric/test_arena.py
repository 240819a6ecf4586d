import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.fabric.arena import ALIGN, Allocator, ArenaFull

SIZE = 1 << 14
STEPS = st.lists(st.one_of(st.integers(0, 3_000), st.tuples(st.integers(0, 100))), max_size=200)


@settings(max_examples=200)
@given(STEPS)
def test_stretches_never_overlap_and_join_again_when_all_are_freed(steps):
    space = Allocator(SIZE)
    owner = np.zeros(SIZE, np.int64)
    taken: dict[int, int] = {}
    for number, step in enumerate(steps, 1):
        if isinstance(step, tuple):
            if taken:
                offset = sorted(taken)[step[0] % len(taken)]
                owner[offset : offset + taken.pop(offset)] = 0
                space.free(offset)
            continue
        try:
            offset = space.allocate(step)
        except ArenaFull:
            gaps = "".join("x" if used else "." for used in owner[::ALIGN] != 0).split("x")
            assert max(map(len, gaps)) * ALIGN < max(1, step)  # there really was no room
            continue
        size = max(ALIGN, -(-step // ALIGN) * ALIGN)
        assert offset % ALIGN == 0
        assert offset + size <= SIZE
        assert not owner[offset : offset + size].any()
        owner[offset : offset + size] = number
        taken[offset] = size
        assert space.used == sum(taken.values())
    for offset in taken:
        space.free(offset)
    assert space.used == 0
    assert space.allocate(SIZE) == 0


def test_a_steady_load_keeps_to_the_same_pages():
    space = Allocator(1 << 20)
    for size in (1_000, 5_000, 1_000) * 10:
        offset = space.allocate(size)
        assert offset == 0
        space.free(offset)


def test_a_full_arena_says_how_much_of_what_is_in_use_and_what_to_do():
    space = Allocator(4096, "set [memory] worker in the job file")
    space.allocate(4000)
    with pytest.raises(ArenaFull) as error:
        space.allocate(1000)
    assert "1,024 bytes wanted, 4,032 of the arena's 4,096 are in use: set [memory] worker in the job file" in str(
        error.value
    )


def test_what_is_kept_is_not_handed_out_again_before_it_is_released():
    space = Allocator(1024)
    first, second, third = (space.allocate(256) for _ in range(3))
    space.free(first)
    space.keep()
    space.free(second)
    assert space.allocate(256) == first
    assert space.allocate(256) not in (second, third)
    with pytest.raises(ArenaFull):
        space.allocate(256)
    with pytest.raises(KeyError):
        space.free(second)
    space.keep()
    space.release()
    assert space.allocate(256) == second
    space.free(third)
    assert space.allocate(256) == third


def test_a_stretch_that_was_not_handed_out_can_not_be_freed():
    space = Allocator(4096)
    offset = space.allocate(64)
    space.free(offset)
    with pytest.raises(KeyError):
        space.free(offset)
