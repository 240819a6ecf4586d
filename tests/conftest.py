"""What all tests share: random numbers whose seed a failure shows, hypothesis without its own stopwatch, and what this
environment's MPI can't do.
"""

import functools
import os
import secrets
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from mpips.cli.launch import find

HERE = Path(__file__).parent
MOST = 4  # processes that tests are spread over: those that start others all run in one of them

# kernels compile at their first call
settings.register_profile("mpips", deadline=None, print_blob=True)
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Jobs run one after the other, and beside them those on several hosts or under Slurm, which wait for most of their
    time; the other modules beside both, each in one process of pytest's.
    """
    for item in items:
        module = item.path.relative_to(HERE)
        if module.parts[0] in ("cli", "jobs") or module.name == "test_under_mpirun.py":
            group = "jobs"
        elif module.parts[0] in ("hosts", "slurm"):
            group = "clusters"
        else:
            group = str(module)
        item.add_marker(pytest.mark.xdist_group(group))


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
