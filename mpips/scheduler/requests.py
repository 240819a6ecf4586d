"""Requests to a running job, for another size or to trace keys, and the answers: small files in its run folder.

Whoever asks writes ``KIND-NAME.request`` under a name of its own; the scheduler's rank takes it away, and writes and
rewrites ``KIND-NAME.answer``, which who has asked takes away. Each file appears as a whole.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from mpips.schema import mistakes

Count = Annotated[int, msgspec.Meta(ge=1)]
PAUSE = 0.5  # seconds between two looks of the scheduler's rank
REQUEST, ANSWER = ".request", ".answer"


class Sizes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many servers and workers a job is to have, None: as many as it has; or how many spares more, which are new
    processes. These are asked for by themselves.
    """

    servers: Count | None = None
    workers: Count | None = None
    spares: Count | None = None

    def __post_init__(self) -> None:
        if self.spares is None and self.servers is None and self.workers is None:
            raise ValueError("must say how many servers, workers or both, or how many spares more")
        if self.spares is not None and (self.servers is not None or self.workers is not None):
            raise ValueError("ask for spares first, then for what they are to be")

    def __str__(self) -> str:
        counts = ((self.servers, "server"), (self.workers, "worker"), (self.spares, "more spare"))
        return " and ".join(f"{count} {name}{'s' * (count > 1)}" for count, name in counts if count is not None)


class KeysToTrace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of a table: what happens to them from now on is to be recorded, or with `stop` no longer."""

    table: str
    keys: list[Annotated[int, msgspec.Meta(ge=0)]]
    stop: bool = False

    def __str__(self) -> str:
        return f"keys {', '.join(map(str, self.keys))} of table {self.table}"


Wanted = Sizes | KeysToTrace
KINDS: dict[str, type[Wanted]] = {"scale": Sizes, "trace": KeysToTrace}


class Answer(msgspec.Struct, frozen=True):
    """What the scheduler says to a request: that it is under way, then that it is done; or that it can't be done.

    `text` says what is done, or why not, in words for a person.
    """

    stage: Literal["under way", "done", "refused"]
    text: str

    @property
    def is_last(self) -> bool:
        """Whether nothing more will be said."""
        return self.stage != "under way"


class Asked:
    """A request, seen by whoever asks.

    Parameters
    ----------
    run : the run folder.
    wanted : what is asked for.

    Raises
    ------
    OSError
        when the run folder can't be written.
    """

    def __init__(self, run: Path, wanted: Wanted) -> None:
        kind = next(kind for kind, of_kind in KINDS.items() if isinstance(wanted, of_kind))
        name = f"{kind}-{secrets.token_hex(4)}"
        self._request = run / f"{name}{REQUEST}"
        self._answer = run / f"{name}{ANSWER}"
        _write(self._request, wanted)

    @property
    def is_taken(self) -> bool:
        """Whether the scheduler has the request."""
        return not self._request.exists()

    def withdraw(self) -> bool:
        """Take the request back; False when the scheduler has it already."""
        try:
            self._request.unlink()
        except FileNotFoundError:
            return False
        return True

    def answer(self) -> Answer | None:
        """The answer so far."""
        try:
            return msgspec.json.decode(self._answer.read_bytes(), type=Answer)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Take the answer away."""
        self._answer.unlink(missing_ok=True)


class Requests:
    """The requests, seen by the scheduler's rank.

    Parameters
    ----------
    run : the run folder.
    fresh : a job begins: what was asked of an earlier one in this folder is removed.
    """

    def __init__(self, run: Path, fresh: bool) -> None:
        self._run = run
        self._next_look = 0.0
        self._seen: set[str] = set()
        if fresh:
            for kind in (REQUEST, ANSWER):
                for path in run.glob(f"*{kind}"):
                    path.unlink(missing_ok=True)

    def new(self, now: float) -> Iterator[tuple[str, Wanted]]:
        """Yield the name of each new request, and what it asks for; looks only now and then.

        A request's file stays until it is `taken`, so that another rank that becomes the scheduler finds it. One that
        can't be understood is refused here.
        """
        if now < self._next_look:
            return
        self._next_look = now + PAUSE
        for path in sorted(self._run.glob(f"*{REQUEST}")):
            name = path.name.removesuffix(REQUEST)
            kind = KINDS.get(name.partition("-")[0])
            if name in self._seen or kind is None:
                continue
            try:
                wanted = _read(path, kind)
            except OSError:  # withdrawn, or the disk is gone
                continue
            except ValueError as error:
                self.answer(name, Answer("refused", str(error)))
                self.taken(name)
            else:
                self._seen.add(name)
                yield name, wanted

    def taken(self, name: str) -> None:
        """A request can't get lost any more: take its file away."""
        with contextlib.suppress(OSError):  # it will not be looked at again
            (self._run / f"{name}{REQUEST}").unlink(missing_ok=True)

    def answer(self, name: str, answer: Answer) -> None:
        """Say what has become of a request; nothing when the run folder can't be written."""
        with contextlib.suppress(OSError):
            _write(self._run / f"{name}{ANSWER}", answer)


def _read(path: Path, kind: type[Wanted]) -> Wanted:
    content = msgspec.json.decode(path.read_bytes())
    found = [f"{mistake.place}: {mistake.text}".lstrip(": ") for mistake in mistakes(kind, content)]
    if found:
        raise ValueError("; ".join(found))
    return msgspec.convert(content, kind)


def _write(path: Path, content: msgspec.Struct) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(msgspec.json.encode(content))
    os.replace(temporary, path)
