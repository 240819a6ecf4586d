"""`mpips scale`: ask a running job for other numbers of servers and workers, or more spares, and wait for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mpips.cli.asking import AskError, ask
from mpips.scheduler.requests import Sizes
from mpips.schema import mistakes, nearest


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
    ask(run, _sizes(sizes))


def _sizes(words: Sequence[str]) -> Sizes:
    """Read ROLE=N words.

    Raises
    ------
    AskError
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
        raise AskError("\n".join(wrong))
    return msgspec.convert(counts, Sizes)
