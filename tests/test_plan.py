"""Arenas of all roles, and the ranks that planned changes of a job's size need."""

import pytest

from mpips.plan import AUTOMATIC, MB, Memory, Scale, SharedMemoryError, arenas, check_scales
from mpips.views.view import Roles, RolesError, View, assign

GB = 1 << 30
PLENTY = 100 * GB


def view_of(nodes: list[int], spares: int) -> View:
    """A scheduler, a server, a data server, spares, and workers with what is left."""
    return assign(nodes, Roles(servers=1, data_servers=1, spares=spares))


class TestArenasOfSpares:
    def test_they_are_as_large_as_the_largest_of_any_role(self) -> None:
        view = view_of([0] * 6, 2)
        sizes = arenas(Memory(), view, view.nodes, PLENTY)
        assert [sizes[rank] for rank in view.spares] == [AUTOMATIC.server] * 2
        chosen = Memory(server=64 * MB, data_server=16 * MB, worker=512 * MB)
        sizes = arenas(chosen, view, view.nodes, PLENTY)
        assert [sizes[rank] for rank in view.spares] == [512 * MB] * 2

    def test_a_job_without_data_has_no_data_server_to_replace(self) -> None:
        view = view_of([0] * 5, 1)
        chosen = Memory(server=64 * MB, data_server=512 * MB, worker=16 * MB)
        (spare,) = view.spares
        assert arenas(chosen, view, view.nodes, PLENTY, data=True)[spare] == 512 * MB
        assert arenas(chosen, view, view.nodes, PLENTY, data=False)[spare] == 64 * MB

    def test_a_node_needs_room_for_one_of_them_at_a_time(self) -> None:
        view = view_of([0] * 8, 4)
        chosen = Memory(server=100 * MB, data_server=10 * MB, worker=10 * MB)
        others = 1 + 100 + 10 + 10  # MB, the scheduler's first
        idle_spares = 3
        arenas(chosen, view, view.nodes, (others + idle_spares + 100) * MB)
        with pytest.raises(SharedMemoryError, match="lower"):
            arenas(chosen, view, view.nodes, (others + idle_spares + 99) * MB)

    @pytest.mark.parametrize("free", [64 * MB, 300 * MB, 4 * GB])
    def test_all_together_stay_below_what_open_mpi_refuses(self, free: int) -> None:
        view = view_of([0] * 10, 5)
        assert sum(arenas(Memory(), view, view.nodes, free)) <= 0.95 * free

    def test_where_shared_memory_is_small_the_others_do_not_shrink_for_every_spare(self) -> None:
        one, many = view_of([0] * 5, 1), view_of([0] * 9, 5)
        (server,) = one.servers
        assert arenas(Memory(), many, many.nodes, GB)[server] > 0.9 * arenas(Memory(), one, one.nodes, GB)[server]

    def test_each_node_reckons_with_its_own(self) -> None:
        view = view_of([0, 0, 0, 1, 1, 1], 2)
        chosen = Memory(server=100 * MB, data_server=100 * MB, worker=100 * MB)
        sizes = arenas(chosen, view, view.nodes, PLENTY)
        assert sizes == [MB, *[100 * MB] * 5]


class TestScales:
    def check(self, *scales: Scale, spares: int = 1) -> None:
        check_scales(scales, assign([0] * (5 + spares), Roles(servers=1, data_servers=1, workers=2)))

    def test_what_spares_can_fill_is_good(self) -> None:
        self.check(Scale(at=1.0, servers=2), Scale(epoch=2, workers=3), Scale(epoch=3, servers=1, workers=3))
        self.check(Scale(at=1.0, servers=2, workers=2))

    def test_more_than_there_are_ranks_is_refused_with_the_spares_that_it_takes(self) -> None:
        with pytest.raises(RolesError, match=r"plan\[1\]: needs 2 ranks more .* roles\.spares = 3"):
            self.check(Scale(at=1.0, servers=2), Scale(at=2.0, servers=2, workers=4))

    def test_ranks_that_another_entry_sets_free_can_be_used(self) -> None:
        self.check(Scale(at=1.0, workers=1), Scale(at=2.0, servers=3))
        with pytest.raises(RolesError, match=r"plan\[0\]: needs 1 ranks more"):
            self.check(Scale(at=2.0, servers=3))
