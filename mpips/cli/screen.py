"""Where tables are shown."""

from rich.console import Console

WIDTH = 160  # of what is no terminal: no column is cut off in a file


def screen() -> Console:
    """The standard output: as wide as a terminal is, and wide enough for any table elsewhere."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)
