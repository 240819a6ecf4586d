"""What all tests share: random numbers whose seed a failure shows, hypothesis without its own stopwatch, and what this
environment's MPI can't do.
"""

import functools
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from mpips.cli.launch import find

FIRST = ("jobs", "clusters", "launches")  # groups of tests that start processes
MOST = 4  # processes that tests are spread over

# kernels compile at their first call; fewer examples than usual, since every run draws others
settings.register_profile("mpips", deadline=None, print_blob=True, max_examples=50)
settings.load_profile("mpips")


@pytest.fixture
def seed() -> int:
    """A new seed for every run, printed with a failure; MPIPS_SEED repeats one."""
    number = int(os.environ.get("MPIPS_SEED") or secrets.randbits(31))
    print(f"seed: MPIPS_SEED={number}")  # noqa: T201
    return number


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """Random numbers from that seed."""
    return np.random.default_rng(seed)


def group_of(nodeid: str) -> str:
    """Which tests one process of pytest's runs one after the other: of `FIRST`, or those of a module."""
    path = Path(nodeid.partition("::")[0])
    if path.parts[1] in ("hosts", "slurm"):
        return "clusters"
    if path.parts[1] == "cli" or path.name == "test_under_mpirun.py":
        return "launches"
    return "jobs" if path.parts[1] == "jobs" else str(path)


class ByGroup(LoadScopeScheduling):
    """Spreads groups over processes."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    """How xdist spreads tests over its processes: groups in the order of their tests."""
    config.option.loadscopereorder = False
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first where tests are spread over processes."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: [*FIRST, group := group_of(item.nodeid)].index(group))


@functools.cache
def without_replacement() -> str:
    """Why no rank is replaced under the MPI of this environment; empty when ranks are."""
    launcher = find()
    named = f"{launcher.library} {launcher.version}"
    return "" if launcher.ulfm else f"{named} has no ULFM: no rank is replaced, and one that dies ends the job"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs ranks that outlive others where the MPI has none."""
    if item.get_closest_marker("replacement") is not None and (reason := without_replacement()):
        pytest.skip(reason)


def pytest_xdist_auto_num_workers() -> int:
    """Processes that tests are spread over: none under mpirun, where all ranks run the same."""
    return 0 if "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ else min(os.cpu_count() or 1, MOST)
