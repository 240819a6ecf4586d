"""What all tests share: random numbers whose seed a failure shows, and hypothesis without its own stopwatch."""

import os
import secrets

import numpy as np
import pytest
from hypothesis import settings

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
