"""The fabric over MPI, on one node through shared memory and between "nodes" through Rget; under mpirun -n 4."""

import time

import numpy as np
import pytest

from mpips.errors import Error
from mpips.fabric import ArenaFull, Deadline
from mpips.messages import Note, ViewTaken, WorkRequest

pytestmark = pytest.mark.mpi(min_size=4)


def listen(fabric, kind=Note):
    heard = []
    fabric.on(kind, lambda source, message: heard.append((source, message)))
    return heard


def all_are_here(fabric):
    """Wait until every rank has come to this line as often as this one; messages are handled meanwhile."""
    fabric.come += 1
    for peer in range(fabric.size):
        fabric.send(peer, WorkRequest())
    fabric.wait(lambda: min(fabric.seen) >= fabric.come, "everyone to be here", timeout=10)


@pytest.fixture
def fabric(fabric):
    """One that counts how often each rank has come to `all_are_here`."""
    fabric.come, fabric.seen = 0, [0] * fabric.size

    def count(source, message):
        fabric.seen[source] += 1

    fabric.on(WorkRequest, count)
    return fabric


def test_messages_arrive_between_all_pairs_in_order_the_own_ones_too(fabric):
    heard = listen(fabric, ViewTaken)
    for number in range(200):
        for peer in range(fabric.size):
            fabric.send(peer, ViewTaken(1000 * fabric.rank + number))
    fabric.wait(lambda: len(heard) == 200 * fabric.size, "all messages", timeout=10)
    for peer in range(fabric.size):
        assert [m.number for source, m in heard if source == peer] == list(range(1000 * peer, 1000 * peer + 200))


def test_a_message_may_be_long(fabric):
    heard = listen(fabric)
    text = "x" * 300_000
    fabric.send((fabric.rank + 1) % fabric.size, Note(text))
    fabric.wait(lambda: bool(heard), "a long message", timeout=10)
    assert heard == [((fabric.rank - 1) % fabric.size, Note(text))]


def test_every_arena_has_its_own_place_on_its_node(fabric, place):
    here = [rank for rank in range(fabric.size) if fabric.nodes[rank] == fabric.nodes[fabric.rank]]
    assert len(here) == (fabric.size if place == "one node" else 1)
    places = [fabric.place(rank) for rank in here]
    assert sorted(places) == places
    assert len(set(places)) == len(places)
    assert [fabric.place(rank) for rank in range(fabric.size) if rank not in here] == [None] * (fabric.size - len(here))
    assert fabric.arena.size == 1 << 20
    assert fabric.arena.ctypes.data % 8 == 0
    assert fabric.arena.ctypes.data == fabric.memory.ctypes.data + fabric.place(fabric.rank)
    assert fabric.memory.size >= len(here) << 20


@pytest.mark.parametrize("count", [1, 1_000, 100_000])
def test_every_rank_reads_every_arena(fabric, count):
    fabric.arena.view(np.float64)[: 1 << 17] = np.arange(1 << 17) + 1e6 * fabric.rank
    all_are_here(fabric)
    arrived, got = [], [np.zeros((count, 1)) for _ in range(fabric.size)]
    for peer in range(fabric.size):
        fabric.fetch(peer, 64, got[peer], lambda peer=peer: arrived.append(peer))
    fabric.wait(lambda: len(arrived) == fabric.size, "all reads", timeout=10)
    for peer in range(fabric.size):
        np.testing.assert_array_equal(got[peer][:, 0], np.arange(8, 8 + count) + 1e6 * peer)
    all_are_here(fabric)


def test_a_read_of_nothing_arrives(fabric):
    arrived = []
    fabric.fetch((fabric.rank + 1) % fabric.size, 0, np.empty((0, 3), np.float32), lambda: arrived.append(1))
    fabric.wait(lambda: bool(arrived), "nothing", timeout=5)
    all_are_here(fabric)


def test_what_a_neighbour_writes_is_seen_in_its_view(fabric, place):
    peer = (fabric.rank + 1) % fabric.size
    if place != "one node":
        with pytest.raises(Error, match=f"rank {peer} is on another node than rank {fabric.rank}"):
            fabric.view(peer, 0, 8)
        return
    fabric.arena[128] = 100 + fabric.rank
    all_are_here(fabric)
    assert fabric.view(peer, 128, 1)[0] == 100 + peer
    all_are_here(fabric)


def test_a_wait_past_its_deadline_says_who_waited_how_long_for_what(fabric):
    start = time.perf_counter()
    with pytest.raises(Deadline, match=f"rank {fabric.rank} waited 0.3 s for a sign from rank 9"):
        fabric.wait(lambda: False, "a sign from rank 9", timeout=0.3)
    assert 0.3 <= time.perf_counter() - start < 2.0


def test_an_idle_rank_leaves_the_core_to_others(fabric):
    all_are_here(fabric)
    start = time.process_time()
    with pytest.raises(Deadline):
        fabric.wait(lambda: False, "nothing", timeout=1.0)
    assert time.process_time() - start < 0.3


def test_a_full_arena_says_what_to_do(fabric):
    with pytest.raises(ArenaFull, match="enlarge it"):
        fabric.space.allocate(2 << 20)


def test_work_aside_runs_beside_the_loop_and_its_error_comes_back(fabric):
    slow = fabric.aside(lambda: time.sleep(0.2) or 42)
    broken = fabric.aside(lambda: 1 // 0)
    fabric.wait(lambda: slow.done() and broken.done(), "the work", timeout=5)
    assert slow.result() == 42
    with pytest.raises(ZeroDivisionError):
        broken.result()
