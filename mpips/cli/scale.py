"""`mpips scale`: ask a running job for other numbers of servers and workers, or more spares, and wait for them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mpips.errors import Error
from mpips.record import EVENTS, RESULT
from mpips.scheduler.requests import Answer, Asked, Sizes
from mpips.schema import mistakes, nearest

PATIENCE = 10.0  # seconds until the scheduler has taken a request, at most
TICK = 0.05


class ScaleError(Error, RuntimeError):
    """A job can't be asked for another size, or can't have it."""


def scale(
    run: Annotated[Path, typer.Argument(help="The run folder of the job.", metavar="RUN", show_default=False)],
    sizes: Annotated[
        list[str],
        typer.Argument(help="servers=N, workers=N or both; or spares=+N.", metavar="ROLE=N...", show_default=False),
    ],
) -> None:
    """Give a running job other numbers of servers and workers: mpips scale RUN servers=3 workers=4.

    What is added is taken from the job's spares, what leaves joins them; spares=+2 starts two more. Waits until it is
    done; Ctrl-C waits no longer, and the job goes on with it.
    """
    wanted = _sizes(sizes)
    _check(run)
    try:
        asked = Asked(run, wanted)
    except OSError as error:
        raise ScaleError(f"{run}: can't be written: {error.strerror}") from None
    try:
        _wait(run, asked, wanted)
    finally:
        asked.close()


def _sizes(words: Sequence[str]) -> Sizes:
    """Read ROLE=N words.

    Raises
    ------
    ScaleError
        with every mistake in them.
    """
    wrong, counts = [], dict[str, Any]()
    for word in words:
        name, _, value = word.partition("=")
        if name not in Sizes.__struct_fields__:
            wrong.append(f'{word}: there is no "{name}" to scale; {nearest(name, Sizes.__struct_fields__)}')
        elif name in counts:
            wrong.append(f"{word}: {name} is there twice")
        else:
            more = value.removeprefix("+") if name == "spares" else value
            if name == "spares" and more == value:
                wrong.append(f"{word}: say how many more: spares=+N")
            counts[name] = int(more) if more.isdecimal() else value
    found = [mistake for mistake in mistakes(Sizes, counts) if mistake.path or not wrong]
    wrong += [f"{mistake.place}: {mistake.text}".lstrip(": ") for mistake in found]
    if wrong:
        raise ScaleError("\n".join(wrong))
    return msgspec.convert(counts, Sizes)


def _check(run: Path) -> None:
    if not run.is_dir():
        what = "a file: choose the run folder" if run.exists() else "no such run folder"
        raise ScaleError(f"{run}: {what}; mpips run says its name in the end, and checkpoint.folder sets it")
    if not (run / EVENTS).exists():
        raise ScaleError(f"{run}: no job has run in this folder")
    _check_not_over(run)


def _check_not_over(run: Path) -> None:
    try:
        result = msgspec.json.decode((run / RESULT).read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return
    except msgspec.DecodeError:
        result = {}
    raise ScaleError(f"{run}: the job is over: {result.get('exit', 'ended')}: {result.get('reason', '')}")


def _wait(run: Path, asked: Asked, wanted: Sizes) -> None:
    """Wait for what becomes of a request, and say it as it comes.

    Raises
    ------
    ScaleError
        when nobody answers, the job ends, or it says no.
    """
    deadline = time.monotonic() + PATIENCE
    said: Answer | None = None
    while True:
        answer = asked.answer()
        if answer is not None and answer.stage == "refused":
            raise ScaleError(f"{run}: {wanted}: {answer.text}")
        if answer is not None and answer != said:
            said = answer
            typer.echo(f"{answer.stage}: {answer.text}")
            if answer.is_last:
                return
        try:
            _check_not_over(run)
        except ScaleError:
            asked.withdraw()
            raise
        if time.monotonic() > deadline and not asked.is_taken and asked.withdraw():
            raise ScaleError(f"{run}: the job has not answered for {PATIENCE:.0f} s: does it still run?")
        time.sleep(TICK)
