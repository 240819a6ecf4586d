"""The simulated fabric keeps the promises that the fabric makes."""

import itertools

import numpy as np
import pytest

from mpips.errors import Error
from mpips.fabric import Deadline, PeerLost
from mpips.fabric.sim import Simulation
from mpips.messages import Note, ViewTaken
from tests.simulated import PLACES


def simulate(main, ranks=4, place="one node", seed=1, arena=4096, before=lambda simulation: None, **settings):
    simulation = Simulation(PLACES[place](ranks), [arena] * ranks, seed, **settings)
    before(simulation)
    return simulation, simulation.run(main)


def listen(fabric, kind=Note):
    heard = []
    fabric.on(kind, lambda source, message: heard.append((source, message)))
    return heard


def test_messages_between_two_ranks_keep_their_order(seed):
    def main(fabric):
        heard = listen(fabric, ViewTaken)
        for number in range(50):
            for peer in range(fabric.size):
                fabric.send(peer, ViewTaken(number))
        fabric.wait(lambda: len(heard) == 50 * fabric.size, "all messages")
        return [[m.number for source, m in heard if source == peer] for peer in range(fabric.size)]

    _, results = simulate(main, ranks=5, seed=seed)
    assert results == [[list(range(50))] * 5] * 5


@pytest.mark.parametrize("place", PLACES)
def test_every_rank_reads_what_another_has_in_its_arena(place):
    def main(fabric):
        heard = listen(fabric)
        fabric.arena[:8] = fabric.rank + 1
        got = [np.zeros(8, np.uint8) for _ in range(fabric.size)]
        arrived = []
        for peer in range(fabric.size):
            fabric.send(peer, Note("written"))
        fabric.wait(lambda: len(heard) == fabric.size, "everyone to have written")
        for peer, out in enumerate(got):
            fabric.fetch(peer, 0, out, lambda: arrived.append(1))
        fabric.wait(lambda: len(arrived) == fabric.size, "all reads")
        return [int(out[-1]) for out in got]

    _, results = simulate(main, place=place)
    assert results == [[1, 2, 3, 4]] * 4


def test_only_an_arena_on_the_own_node_can_be_viewed():
    def main(fabric):
        fabric.view(fabric.rank ^ 2, 0, 8)  # same node: ranks 0, 2 and 1, 3
        with pytest.raises(Error, match="on another node"):
            fabric.view(fabric.rank ^ 1, 0, 8)

    simulate(main, place="two nodes")


def test_a_wait_past_its_deadline_says_who_waited_how_long_for_what():
    def main(fabric):
        with pytest.raises(Deadline) as error:
            fabric.wait(lambda: False, "a miracle", timeout=7)
        return str(error.value), fabric.now(), fabric.waiting

    _, results = simulate(main, ranks=1)
    text, now, waiting = results[0]
    assert text == "rank 0 waited 7 s for a miracle"
    assert 7 <= now < 8
    assert waiting == ""


def test_every_wait_has_its_own_words_also_when_the_rank_was_idle_before():
    def main(fabric):
        with pytest.raises(Deadline):
            fabric.wait(lambda: False, "the first", timeout=1)
        with pytest.raises(Deadline, match="waited 1 s for the second"):
            fabric.wait(lambda: False, "the second", timeout=1)

    simulate(main, ranks=1)


def test_a_rank_that_is_kept_busy_still_meets_its_deadline():
    def main(fabric):
        rounds, ticks = itertools.count(), itertools.count()
        fabric.now = lambda: next(ticks) * 0.01

        def busy():
            assert next(rounds) < 100_000, "no deadline"
            return True

        fabric.background.append(busy)
        with pytest.raises(Deadline):
            fabric.wait(lambda: False, "quiet", timeout=1)

    simulate(main, ranks=1)


def test_waiting_for_a_rank_that_dies_ends_with_its_name():
    def main(fabric):
        if fabric.rank == 2:
            fabric.wait(lambda: False, "its death", timeout=None)
        try:
            fabric.wait(lambda: False, f"rank {2 - fabric.rank}", lambda: {2 - fabric.rank}, timeout=1)
        except PeerLost as error:
            return str(error), fabric.now(), fabric.lost
        except Deadline:
            return "deadline", fabric.now(), fabric.lost

    _, results = simulate(main, ranks=3, before=lambda s: s.kill(2, 0.3))
    text, now, lost = results[0]
    assert text == "rank 0 waited for rank 2, but rank 2 is dead"
    assert 0.3 < now < 0.4
    assert lost == {2}
    assert results[1][0] == "deadline"  # it waited for itself: others' deaths do not disturb it
    assert results[2] is None


def test_a_read_from_the_dead_never_completes_and_disturbs_no_other():
    def main(fabric):
        if fabric.rank == 1:
            fabric.wait(lambda: False, "its death", timeout=None)
        if fabric.rank == 2:
            fabric.arena[:] = 7
            heard = listen(fabric)
            fabric.wait(lambda: bool(heard), "a word", timeout=None)
            return None
        with pytest.raises(Deadline):
            fabric.wait(lambda: False, "the death of rank 1", timeout=0.5)
        arrived, out = [], np.zeros(8, np.uint8)
        fabric.fetch(1, 0, np.zeros(8, np.uint8), lambda: arrived.append(1))
        fabric.fetch(2, 0, out, lambda: arrived.append(2))
        with pytest.raises(Deadline):
            fabric.wait(lambda: len(arrived) == 2, "both", timeout=1)
        fabric.send(1, Note("into the void"))
        fabric.send(2, Note("enough"))
        return arrived, int(out[0])

    _, results = simulate(main, ranks=3, place="nodes of their own", before=lambda s: s.kill(1, 0.1))
    assert results[0] == ([2], 7)


def test_a_paused_rank_comes_back_and_a_cut_holds_messages_back():
    def main(fabric):
        heard = listen(fabric)
        fabric.send(1 - fabric.rank, Note("hello"))
        fabric.wait(lambda: bool(heard), "a word", timeout=None)
        return fabric.now()

    _, paused = simulate(main, ranks=2, before=lambda s: s.pause(1, 0.0, 5.0))
    assert paused[0] < 1.0 or paused[0] >= 5.0
    assert paused[1] >= 5.0
    _, cut = simulate(main, ranks=2, before=lambda s: s.cut([0], 0.0, 9.0))
    assert min(cut) >= 9.0


def test_a_rank_dies_at_the_message_it_was_told_to():
    def main(fabric):
        heard = listen(fabric)
        if fabric.rank == 0:
            for number in range(5):
                fabric.send(1, Note(str(number)))
            return "alive"
        fabric.wait(lambda: 0 in fabric.lost, "the death of rank 0")
        return [message.text for _, message in heard]

    _, results = simulate(main, ranks=2, before=lambda s: s.kill_at_message(0, 4))
    assert results == [None, ["0", "1", "2"]]


def test_a_simulation_that_never_ends_says_what_every_rank_waits_for():
    def main(fabric):
        fabric.wait(lambda: False, f"the moon, as rank {fabric.rank}", timeout=None)

    simulation = Simulation([0, 0], [4096, 4096], 5)
    with pytest.raises(Deadline) as error:
        simulation.run(main, limit=10)
    assert str(error.value) == (
        "seed 5: not over after 10 simulated seconds\nrank 0: the moon, as rank 0\nrank 1: the moon, as rank 1"
    )


def test_a_message_without_a_handler_is_an_error_that_names_it():
    def main(fabric):
        if fabric.rank == 1:
            fabric.send(0, Note("?"))
            return
        with pytest.raises(Error, match="rank 0: no handler for Note from rank 1"):
            fabric.wait(lambda: False, "trouble", timeout=1)

    simulate(main, ranks=2)


def test_an_idle_rank_costs_few_steps():
    looks = []

    def main(fabric):
        fabric.background.append(lambda: bool(looks.append(1)))
        with pytest.raises(Deadline):
            fabric.wait(lambda: False, "nothing", timeout=60)

    simulate(main, ranks=1)
    assert len(looks) < 600
