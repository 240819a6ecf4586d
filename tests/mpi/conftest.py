"""Fabrics and whole jobs over the MPI of this process; see tests/mpirun.py for how the ranks come about."""

import faulthandler
import signal

import pytest

from mpips.plan import MB
from mpips.rank import Rank
from mpips.views.view import assign

PLACES = ["one node", "nodes of their own"]


def pytest_configure(config):
    if config.getoption("--with-mpi"):
        faulthandler.register(signal.SIGUSR2, all_threads=True)  # whoever finds a hang asks every rank where it is


def nodes_of(place):
    from mpips.fabric.mpi import world

    nodes = world().nodes
    return nodes if place == "one node" else list(range(len(nodes)))


@pytest.fixture(params=PLACES)
def place(request):
    return request.param


@pytest.fixture
def fabric(place):
    """A fabric among all ranks, with arenas of 1 MB; all leave together."""
    from mpips.fabric.mpi import MpiFabric

    fabric = MpiFabric(nodes_of(place), MB, "enlarge it")
    yield fabric
    assert fabric.close()


@pytest.fixture
def live(place):
    """Live this rank's life in a job; how it ended."""
    from mpips.fabric.mpi import MpiFabric

    def life(plan):
        nodes = nodes_of(place)
        fabric = MpiFabric(nodes, 4 * MB)
        outcome = Rank(fabric, assign(nodes, plan.roles, plan.others), plan).live()
        assert fabric.close()
        return outcome

    return life
