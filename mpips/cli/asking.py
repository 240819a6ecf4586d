"""Asking a running job for something, by a file in its run folder, and waiting for what becomes of it."""

import time
from pathlib import Path
from typing import Any

import msgspec
import typer

from mpips.errors import Error
from mpips.record import EVENTS, RESULT
from mpips.scheduler.requests import Answer, Asked, Wanted

PATIENCE = 10.0  # seconds until the scheduler has taken a request, at most
TICK = 0.05


class AskError(Error, RuntimeError):
    """A job can't be asked for something, or can't do it."""


def check(run: Path) -> None:
    """See that a folder is a job's run folder.

    Raises
    ------
    AskError
        when it is not.
    """
    if not run.is_dir():
        what = "a file: choose the run folder" if run.exists() else "no such run folder"
        raise AskError(f"{run}: {what}; mpips run says its name in the end, and checkpoint.folder sets it")
    if not (run / EVENTS).exists():
        raise AskError(f"{run}: no job has run in this folder")


def how_it_ended(run: Path) -> str | None:
    """How the job in a folder has ended, and why; None while it has not."""
    try:
        result = msgspec.json.decode((run / RESULT).read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        result = {}
    return f"{result.get('exit', 'ended')}: {result.get('reason', '')}"


def _check_not_over(run: Path) -> None:
    end = how_it_ended(run)
    if end is not None:
        raise AskError(f"{run}: the job is over: {end}")


def ask(run: Path, wanted: Wanted) -> None:
    """Ask, and show the answers until the last.

    Raises
    ------
    AskError
        when no job runs there, or it says no; when nobody answers, or the run folder can't be written.
    """
    check(run)
    _check_not_over(run)
    try:
        asked = Asked(run, wanted)
    except OSError as error:
        raise AskError(f"{run}: can't be written: {error.strerror}") from None
    try:
        _wait(run, asked, wanted)
    finally:
        asked.close()


def _wait(run: Path, asked: Asked, wanted: Wanted) -> None:
    """Wait for what becomes of a request, and say it as it comes."""
    deadline = time.monotonic() + PATIENCE
    said: Answer | None = None
    while True:
        answer = asked.answer()
        if answer is not None and answer.stage == "refused":
            raise AskError(f"{run}: {wanted}: {answer.text}")
        if answer is not None and answer != said:
            said = answer
            typer.echo(f"{answer.stage}: {answer.text}")
            if answer.is_last:
                return
        try:
            _check_not_over(run)
        except AskError:
            asked.withdraw()
            raise
        if time.monotonic() > deadline and not asked.is_taken and asked.withdraw():
            raise AskError(f"{run}: the job has not answered for {PATIENCE:.0f} s: does it still run?")
        time.sleep(TICK)
