"""The simulated fabric keeps the promises that the fabric makes."""

import ast
import itertools

import numpy as np
import pytest

from mpips.errors import Error
from mpips.fabric import Deadline, PeerLost
from mpips.fabric.sim import Simulation
from mpips.messages import Note, ViewTaken
from tests.simulated import PLACES, rest


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


def test_a_rank_dies_when_it_has_received_so_many_messages_and_handles_the_last_no_more():
    heard = []

    def main(fabric):
        fabric.on(Note, lambda source, message: heard.append(message.text))
        if fabric.rank == 0:
            for number in range(5):
                fabric.send(1, Note(str(number)))
        fabric.wait(lambda: 1 in fabric.lost, "the death of rank 1")

    simulate(main, ranks=2, before=lambda s: s.kill_at_received(1, 3))
    assert heard == ["0", "1"]


def test_one_of_the_ranks_named_at_that_time_dies():
    def main(fabric):
        fabric.wait(lambda: bool(fabric.lost), "a death", timeout=None)
        return fabric.lost

    named = []
    victims = set()
    for seed in range(20):
        simulation, results = simulate(
            main, ranks=4, seed=seed, before=lambda s: s.kill_one(lambda: named.append(s.time) or [1, 3], 2.0)
        )
        (victim,) = (rank for rank, result in enumerate(results) if result is None)
        assert results[0] == {victim}
        assert simulation.faults == [("kill", victim, 2.0)]
        victims.add(victim)
    assert victims == {1, 3}
    assert named == [2.0] * 20


def test_who_is_taken_for_dead_comes_back_to_a_world_without_it_and_is_ended():
    def main(fabric):
        heard = listen(fabric)
        if fabric.rank == 1:
            fabric.wait(lambda: fabric.now() > 1.5, "a while")
            fabric.send(0, Note("I was away"))
            fabric.wait(lambda: False, "its end", timeout=None)
        if fabric.rank == 2:
            fabric.wait(lambda: 1 in fabric.lost, "the death of rank 1")
            return fabric.now()
        fabric.wait(lambda: bool(heard), "a word of the dead")
        return fabric.now(), set(fabric.lost)

    _, results = simulate(main, ranks=3, before=lambda s: s.mistake(1, 1.0, 5.0))
    said, lost = results[0]
    assert said >= 6.0
    assert lost == {1}
    assert results[1] is None
    assert 1.02 <= results[2] < 1.1


def test_a_message_may_come_twice_and_only_of_the_kinds_that_were_named():
    def main(fabric):
        notes, views = listen(fabric), listen(fabric, ViewTaken)
        for number in range(100):
            fabric.send(1 - fabric.rank, Note(str(number)))
            fabric.send(1 - fabric.rank, ViewTaken(number))
        with pytest.raises(Deadline):
            fabric.wait(lambda: False, "all messages", timeout=1)
        return [message.text for _, message in notes], [message.number for _, message in views]

    _, results = simulate(main, ranks=2, before=lambda s: s.repeat(0.5, ["Note"]))
    for notes, views in results:
        assert 120 < len(notes) < 180
        assert list(dict.fromkeys(notes)) == [str(number) for number in range(100)]
        assert views == list(range(100))


def test_messages_may_be_late_some_of_them_very_and_stay_in_order_between_two_ranks():
    def main(fabric):
        times = []
        fabric.on(ViewTaken, lambda source, message: times.append((message.number, fabric.now())))
        if fabric.rank == 0:
            for number in range(200):
                times.append((number, fabric.now()))
                fabric.send(1, ViewTaken(number))
                rest(fabric, 0.1)
        else:
            fabric.wait(lambda: len(times) == 200, "all messages", timeout=None)
        return times

    def lateness(results):
        sent, heard = results
        assert [number for number, _ in heard] == list(range(200))
        return [arrived - left for (_, left), (_, arrived) in zip(sent, heard, strict=True)]

    late = lateness(simulate(main, ranks=2, before=lambda s: s.delay(0.2, 0.5))[1])
    assert sum(each > 0.1 for each in late) > 20
    assert max(late) > 1.0
    assert max(lateness(simulate(main, ranks=2)[1])) < 1e-4


def test_what_runs_aside_may_take_long_and_ends_with_its_rank():
    done = []

    def main(fabric):
        future = fabric.aside(lambda: done.append(fabric.rank) or fabric.rank)
        assert not future.done()
        fabric.wait(future.done, "what runs aside", timeout=None)
        return future.result(), fabric.now()

    def before(simulation):
        simulation.linger(2.0, 3.0)
        simulation.kill(1, 1.0)

    _, results = simulate(main, ranks=2, before=before)
    assert results[1] is None
    assert results[0][0] == 0
    assert 2.0 <= results[0][1] < 3.3
    assert done == [0]


def test_a_run_can_be_repeated_from_its_story(seed):
    """Whatever was arranged, a kill of whoever it was at that time included."""
    log = []

    def main(fabric):
        def hear(source, message):
            log.append((fabric.now(), fabric.rank, source, message.text))
            fabric.send(int(message.text) % fabric.size, Note(str(int(message.text) * 7 + fabric.rank)))

        fabric.on(Note, hear)
        fabric.send((fabric.rank + 1) % fabric.size, Note(str(fabric.rank)))
        with pytest.raises(Deadline):
            fabric.wait(lambda: False, "nothing", timeout=0.5)

    def before(simulation):
        simulation.kill_one(lambda: [1, 2, 3], 0.011)
        simulation.kill_at_message(0, 90)
        simulation.kill_at_received(4, 200)
        simulation.mistake(5, 0.02, 0.05)
        simulation.pause(6, 0.01, 0.01)
        simulation.delay(0.1, 0.001)
        simulation.repeat(0.1)
        simulation.linger(0.1, 0.2)
        simulation.cut([6, 7], 0.002, 0.005)

    first, _ = simulate(main, ranks=8, seed=seed, before=before)
    whole, log = log, []
    faults = ast.literal_eval(first.story.removeprefix(f"seed {seed}, faults "))
    again, _ = simulate(main, ranks=8, seed=seed, before=lambda s: s.arrange(faults))
    assert log == whole
    assert sorted(map(str, again.faults)) == sorted(map(str, first.faults))
    assert again.time == first.time


def test_an_exception_tells_the_story_of_its_run():
    def main(fabric):
        fabric.wait(lambda: fabric.now() > 1.0, "a while")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        simulate(main, ranks=2, seed=12, before=lambda s: s.pause(1, 0.3, 0.5))
    assert error.value.__notes__ == ["seed 12, faults [('pause', 1, 0.3, 0.5)]"]


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
