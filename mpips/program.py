"""Programs by name: what the workers of a group run, as a job file names it."""

from collections.abc import Callable
from typing import Any, TypeVar

Program = TypeVar("Program", bound=Callable[[Any], Any])

WATCH = "watch"  # the one that is built in: evaluates the live model on the test rows, again and again

PROGRAMS: dict[str, Callable[[Any], Any]] = {}


def program(run: Program) -> Program:
    """Register ``f(worker) -> result`` under its own name, for ``[groups.NAME] program`` of a job file."""
    PROGRAMS[run.__name__] = run
    return run
