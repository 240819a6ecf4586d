"""Where each value of a TOML text stands: `tomllib` reads values but forgets their lines."""

import re
import tomllib
from typing import NamedTuple

Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""
      (?P<blank>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<text>\"{3}(?:\\.|[^\\])*?\"{3,5}(?!\") | '{3}.*?'{3,5}(?!') | "(?:\\.|[^"\\])*" | '[^']*')
    | (?P<mark>[\[\]{}=,.])
    | (?P<bare>[^\s\[\]{}=,.#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def lines(text: str) -> dict[Path, int]:
    """Find the line of every key, table and array element.

    Parameters
    ----------
    text : str
        A TOML document that `tomllib` accepts; for any other the result is not defined.

    Returns
    -------
    dict
        Path (keys, and indices of arrays) to line, counted from 1. Of a table written in several places, the first.
    """
    return _Scan(text).document()


class _Scan:
    """One pass over the tokens of a valid document."""

    def __init__(self, text: str) -> None:
        self.tokens: list[_Token] = []
        line = 1
        for match in _TOKEN.finditer(text):
            kind = str(match.lastgroup)
            if kind != "blank":
                self.tokens.append(_Token(kind, match.group(), line))
            line += match.group().count("\n")
        self.tokens.append(_Token("end", "", line))
        self.at = 0
        self.found: dict[Path, int] = {}
        self.lengths: dict[Path, int] = {}

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self.token.kind != "end":
            if self.token.kind == "newline":
                self.at += 1
            elif self.token.text == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.found

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.token
        self.at += 1
        return token

    def note(self, path: Path, line: int) -> None:
        self.found.setdefault(path, line)

    def header(self) -> Path:
        line = self.take().line
        several = self.token.text == "["
        self.at += several
        path: Path = ()
        keys = self.key()
        for number, key in enumerate(keys):
            path += (key,)
            self.note(path, line)
            if several and number == len(keys) - 1:
                self.lengths[path] = self.lengths.get(path, 0) + 1
            if path in self.lengths:
                path += (self.lengths[path] - 1,)
                self.note(path, line)
        self.at += 2 if several else 1
        return path

    def pair(self, table: Path) -> None:
        line = self.token.line
        path = table
        for key in self.key():
            path += (key,)
            self.note(path, line)
        self.at += 1
        self.value(path)

    def key(self) -> list[str]:
        keys = [_name(self.take())]
        while self.token.text == ".":
            self.at += 1
            keys.append(_name(self.take()))
        return keys

    def value(self, path: Path) -> None:
        opening = self.token.text
        if opening not in ("[", "{"):
            while self.token.kind not in ("newline", "end") and self.token.text not in (",", "]", "}"):
                self.at += 1
            return
        self.at += 1
        index = 0
        while self.token.text not in ("]", "}"):
            if self.token.kind == "newline" or self.token.text == ",":
                self.at += 1
            elif opening == "{":
                self.pair(path)
            else:
                self.note((*path, index), self.token.line)
                self.value((*path, index))
                index += 1
        self.at += 1


def _name(token: _Token) -> str:
    return str(tomllib.loads(f"key = {token.text}")["key"]) if token.kind == "text" else token.text
