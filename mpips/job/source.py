"""Where the values of a job come from: the file's text with its lines, and what the command line sets instead."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpips.errors import Error
from mpips.job.lines import lines
from mpips.schema import Mistake, nearest

Place = tuple[str | int, ...]


class JobFileError(Error, ValueError):
    """A job file can't be used; the text has a line for each mistake: file, line, path, remedy."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = list(mistakes)


class JobSource:
    """A job file as it was read, with overrides.

    Parameters
    ----------
    path : path of the TOML file.
    overrides : ``a.b=value`` each; the value is TOML, or else a plain text.

    Attributes
    ----------
    text : the file's text.
    content : its values, the overrides among them.
    refused : a line for each override that can't be understood.

    Raises
    ------
    JobFileError
        when the file can't be read or is not TOML.
    """

    def __init__(self, path: Path, overrides: Sequence[str]) -> None:
        self.path = path
        self.text, self.content = _read(path)
        self.refused: list[str] = []
        self._lines = lines(self.text)
        self._overrides: dict[Place, str] = {}
        for item in overrides:
            self._set(item)

    def _set(self, item: str) -> None:
        key, sign, value = item.partition("=")
        names = _names(key) if sign else []
        if not names:
            self.refused.append(f"--set {item}: must be KEY=VALUE, like roles.workers=2")
            return
        table = self.content
        for depth, name in enumerate(names[:-1], 1):
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                self.refused.append(f"--set {item}: {'.'.join(names[:depth])} is not a table")
                return
        table[names[-1]] = _value(value)
        self._overrides[tuple(names)] = item

    def report(self, mistakes: Sequence[Mistake]) -> list[str]:
        """Say where each mistake stands, file and line or the override, in that order."""
        placed = sorted((self._placed(mistake) for mistake in mistakes), key=lambda pair: pair[0])
        return [text for _, text in placed]

    def _placed(self, mistake: Mistake) -> tuple[int, str]:
        said = f"{mistake.place}: {mistake.text}" if mistake.path else mistake.text
        parts = [mistake.path[:length] for length in range(len(mistake.path), 0, -1)]
        item = next((self._overrides[part] for part in parts if part in self._overrides), None)
        for part in parts:
            if item is None and part in self._lines:
                return self._lines[part], f"{self.path}:{self._lines[part]}: {said}"
            item = item or next((self._overrides[path] for path in self._overrides if path[: len(part)] == part), None)
            if item is not None:
                return 0, f"--set {item}: {said}"
        return 0, f"{self.path}: {said}"


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        others = [file.name for file in path.parent.glob("*.toml")]
        hint = f"; {nearest(path.name, others)}" if others else ""
        raise JobFileError([f"{path}: there is no such job file in {path.parent.absolute()}{hint}"]) from None
    except OSError as error:
        raise JobFileError([f"{path}: can't be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise JobFileError([f"{path}: byte {error.start} is not UTF-8: is this a job file?"]) from None
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).rpartition(" (at ")
        line = re.search(r"line (\d+)", place)
        number = int(line[1]) if line else text.count("\n") + 1
        raise JobFileError([f"{path}:{number}: not TOML: {what or error}"]) from None


def _names(key: str) -> list[str]:
    try:
        table = tomllib.loads(f"{key} = 0") if "\n" not in key else {}
    except tomllib.TOMLDecodeError:
        return []
    names = []
    while isinstance(table, dict) and len(table) == 1:
        names.append(next(iter(table)))
        table = table[names[-1]]
    return names


def _value(text: str) -> Any:
    try:
        values = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return values["value"] if len(values) == 1 else text
