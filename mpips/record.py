"""The files of a run folder that tell people and programs how a job goes: events, ranks, the result."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from mpips.errors import Error


class RunFolderError(Error, OSError):
    """The run folder can't be used."""


def unusable(run: Path, error: OSError) -> RunFolderError:
    """What to say of a run folder that can't be made or written."""
    return RunFolderError(f"{run}: can't be the run folder: {error.strerror}: choose another by checkpoint.folder")


EVENTS = "metrics.jsonl"
RANKS = "ranks.json"
RESULT = "result.json"
RESERVED = 16384  # bytes for the result, taken at the start: a full disk can't keep a job from saying how it ended


class Record:
    """Writes them; `run` None leaves no files, `fresh` begins anew.

    ``metrics.jsonl`` has an event or a sample a line; ``ranks.json`` and ``result.json`` are replaced as a whole. A
    job goes on when the disk is full: events are kept until there is room again.

    Raises
    ------
    RunFolderError
        when the folder can't be made.
    """

    def __init__(self, run: Path | None, fresh: bool = True) -> None:
        self._run = run
        self._unwritten = ""
        self._complained = False
        if run is not None and fresh:
            try:
                run.mkdir(parents=True, exist_ok=True)
                for name in (EVENTS, RANKS, RESULT):
                    (run / name).unlink(missing_ok=True)
            except OSError as error:
                raise unusable(run, error) from error
            self._reserve(run)

    def event(self, event: dict[str, Any]) -> None:
        """Append an event, with the time."""
        if self._run is None:
            return
        self._unwritten += json.dumps({"time": round(time.time(), 3), **event}) + "\n"
        try:
            with (self._run / EVENTS).open("a", encoding="utf-8") as file:
                file.write(self._unwritten)
            self._unwritten = ""
        except OSError as error:
            self._complain(error)

    def ranks(self, ranks: list[dict[str, Any]]) -> None:
        """Replace the list of ranks: rank, role, host, pid."""
        if self._run is None:
            return
        temporary = (self._run / RANKS).with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(ranks, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, self._run / RANKS)
        except OSError as error:
            self._complain(error)

    def result(self, result: dict[str, Any]) -> None:
        """Write what came of the job."""
        if self._run is None:
            return
        reserved = self._reserved(self._run)
        try:
            with reserved.open("r+" if reserved.exists() else "w", encoding="utf-8") as file:
                file.write(json.dumps(result, indent=2) + "\n")
                file.truncate()
            os.replace(reserved, self._run / RESULT)
        except OSError as error:
            self._complain(error)

    @staticmethod
    def _reserved(run: Path) -> Path:
        return (run / RESULT).with_suffix(".tmp")

    def _reserve(self, run: Path) -> None:
        try:
            self._reserved(run).write_text(" " * RESERVED)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            print(f"mpips: the run folder can't be written: {error}", file=sys.stderr, flush=True)  # noqa: T201
