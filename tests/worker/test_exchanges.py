"""Arrays that ranks hand each other: they come whole, under their keys, and nothing of them stays."""

import numpy as np
import pytest

from mpips.fabric import ArenaFull, Deadline
from mpips.fabric.sim import Simulation
from mpips.worker.exchanges import Exchanges
from mpips.worker.team import Regrouped, Team
from tests.simulated import FAST, PLACES, rest

KB = 1 << 10


def live(nodes, main, seed=1, size=64 * KB, latency=FAST, **faults):
    """Run a function on each rank: of its fabric and exchanges."""
    world = Simulation(PLACES[nodes](3), [size] * 3, seed, latency)
    for name, arguments in faults.items():
        getattr(world, name)(*arguments)
    return world.run(lambda fabric: main(fabric, Exchanges(fabric)))


def values(rank, to, turn):
    return np.arange(24.0).reshape(2, 3, 4) + 100 * rank + 1000 * to + 10_000 * turn


@pytest.mark.parametrize("nodes", PLACES)
def test_everyone_gets_what_was_given_to_it_whoever_comes_first(nodes, seed):
    turns = 20

    def main(fabric, exchanges):
        me, others = fabric.rank, [rank for rank in range(3) if rank != fabric.rank]
        rng = np.random.default_rng((seed, me))
        found = [{other: np.empty((2, 3, 4)) for other in others} for _ in range(turns)]
        taken = []
        for turn in range(turns):
            rest(fabric, rng.exponential(1e-4))
            given = {other: values(me, other, turn) for other in others}
            exchanges.give((0, turn), given)
            for array in given.values():
                array[:] = -1  # it was copied
            rest(fabric, rng.exponential(1e-4))
            taken.append(exchanges.take((0, turn), found[turn]))
        fabric.wait(lambda: all(each.finished for each in taken), "all that is given")
        for turn, parts in enumerate(found):
            for other, part in parts.items():
                assert (part == values(other, me, turn)).all()
        fabric.wait(lambda: not exchanges.unread, "that all is read")
        rest(fabric, 0.1)
        return fabric.space.used

    assert live(nodes, main, seed, repeat=(0.3,), delay=(0.2, 1e-3)) == [0, 0, 0]


@pytest.mark.parametrize("nodes", PLACES)
def test_a_part_of_an_array_goes_into_a_part_of_another(nodes):
    def main(fabric, exchanges):
        me, mine = fabric.rank, values(fabric.rank, 0, 0)
        if me:
            exchanges.give((0,), {0: mine[:, 1:, ::2]})
            rest(fabric, 0.1)
            return True
        whole = np.zeros((4, 4, 4))
        places = {1: whole[:2, :2, :2], 2: whole[2:, 2:, ::2]}
        taken = exchanges.take((0,), places)
        fabric.wait(lambda: taken.finished, "both")
        return all((place == values(rank, 0, 0)[:, 1:, ::2]).all() for rank, place in places.items())

    assert all(live(nodes, main))


def test_what_goes_to_several_is_laid_once():
    def main(fabric, exchanges):
        if fabric.rank == 0:
            array = np.ones(4 * KB, np.uint8)
            exchanges.give((0,), {1: array, 2: array})
            laid = fabric.space.used
            fabric.wait(lambda: not exchanges.unread, "that all is read")
            return laid, fabric.space.used
        out = np.zeros(4 * KB, np.uint8)
        taken = exchanges.take((0,), {0: out})
        fabric.wait(lambda: taken.finished, "it")
        rest(fabric, 0.05)
        return out.all()

    assert live("one node", main) == [(4 * KB, 0), True, True]


@pytest.mark.parametrize("nodes", PLACES)
def test_what_belongs_to_another_era_is_neither_given_nor_kept(nodes):
    def main(fabric, exchanges):
        me = fabric.rank
        if me == 0:
            exchanges.begin(1)
            exchanges.give((1, 7), {1: np.full(8, 1.0)})
            exchanges.begin(2)
            exchanges.give((2, 7), {1: np.full(8, 2.0)})
            fabric.wait(lambda: not exchanges.unread, "that all is read")
            return fabric.space.used
        if me == 1:
            out = np.zeros(8)
            rest(fabric, 0.01)  # both have come
            exchanges.begin(1)
            exchanges.begin(2)
            taken = exchanges.take((2, 7), {0: out})
            fabric.wait(lambda: taken.finished, "it")
            rest(fabric, 0.05)
            return out.tolist()
        return None

    assert live(nodes, main)[:2] == [0, [2.0] * 8]


def test_the_dead_read_nothing():
    def main(fabric, exchanges):
        if fabric.rank == 0:
            exchanges.give((0,), {1: np.ones(8), 2: np.ones(8)})
            rest(fabric, 0.01)
            exchanges.viewed([1])
            return fabric.space.used
        rest(fabric, 0.02)
        return None

    found = live("one node", main)
    assert found[0] == 64  # for rank 2, which has not taken it


def test_who_gives_more_than_fits_waits_until_it_is_read_or_is_told():
    def main(fabric, exchanges):
        if fabric.rank == 0:
            for turn in range(10):
                exchanges.give((0, turn), {1: np.full(20 * KB, turn, np.uint8)})
            with pytest.raises(ArenaFull, match="bytes wanted"):
                exchanges.give((0, 10), {1: np.empty(65 * KB, np.uint8)})
            fabric.wait(lambda: not exchanges.unread, "that all is read")
            for turn in range(3):
                exchanges.give((0, 20 + turn), {2: np.empty(20 * KB, np.uint8)})
            with pytest.raises(Deadline, match="20,480 bytes of the arena"):
                exchanges.give((0, 23), {2: np.empty(20 * KB, np.uint8)})
            return True
        if fabric.rank == 1:
            for turn in range(10):
                rest(fabric, 1e-3)
                out = np.empty(20 * KB, np.uint8)
                taken = exchanges.take((0, turn), {0: out})
                fabric.wait(lambda: taken.finished, "it")  # noqa: B023
                assert (out == turn).all()
        for _ in range(7):
            rest(fabric, 10.0)
        return True

    assert all(live("one node", main))


def test_a_team_that_has_another_member_begins_anew():
    def main(fabric, exchanges):
        if fabric.rank == 2:
            return True
        team = Team(exchanges, [0, 1], fabric.rank, 1)
        assert (team.member, team.size, team.leads) == (fabric.rank, 2, fabric.rank == 0)
        assert not team.viewed([0, 1], 2)
        assert team.viewed([0, 2], 3)
        with pytest.raises(Regrouped):
            team.swap((1,), {}, {})
        team.regrouped = False
        assert team.swap((1,), {}, {}).finished
        return True

    assert all(live("one node", main))


def test_what_finds_room_when_its_era_is_over_is_not_given():
    def main(fabric, exchanges):
        if fabric.rank == 0:
            for turn in range(3):
                exchanges.give((0, turn), {2: np.empty(20 * KB, np.uint8)})

            def regroup():
                if fabric.now() > 0.01 and exchanges.unread:
                    exchanges.begin(1)
                    exchanges.viewed([2])
                return False

            fabric.background.append(regroup)
            exchanges.give((0, 3), {1: np.empty(20 * KB, np.uint8), 2: np.empty(8, np.uint8)})
            return fabric.space.used, exchanges.unread
        rest(fabric, 0.1)
        return None

    assert live("one node", main)[0] == (0, 0)
