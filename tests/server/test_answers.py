"""Answers lie in the arena until they are taken, and not at all for who is dead."""

from types import SimpleNamespace

import numpy as np

from mpips.fabric.arena import Allocator
from mpips.messages import Taken
from mpips.server.answers import Answers


def test_an_answer_is_there_until_it_is_taken_and_none_is_left_for_the_dead():
    arena, done, said, handlers = np.zeros(1 << 12, np.uint8), [], [], {}
    space = Allocator(arena.size)
    fabric = SimpleNamespace(
        arena=arena, space=space, send=lambda dest, message: said.append((dest, message)), on=handlers.__setitem__
    )
    answers = Answers(fabric, SimpleNamespace(done=lambda *task: done.append(task)))
    data = np.arange(5, dtype=np.uint64)
    for source in (3, 4):
        assert answers.leave(source, 1, [data], lambda slot: slot)
    assert [dest for dest, _ in said] == [3, 4]
    for _, slot in said:
        assert (arena[slot : slot + data.nbytes].view(np.uint64) == data).all()
    handlers[Taken](4, SimpleNamespace(time=1, part=0))
    answers.forget(3)
    assert not answers.waiting()
    assert space.used == 0
    assert not answers.leave(3, 2, [data], lambda slot: slot)
    assert len(said) == 2
    assert done == [(3, 1, 0), (4, 1, 0), (3, 2, 0)]
    assert not answers.waiting()
