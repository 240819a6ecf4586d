"""The files of a run folder that tell people and programs how a job goes: events, ranks, the result."""

import contextlib
import json
import os
import sys
import time
from io import FileIO
from pathlib import Path
from typing import Any

from mpips import trace
from mpips.errors import Error


class RunFolderError(Error, OSError):
    """The run folder can't be used."""


def unusable(run: Path, error: OSError) -> RunFolderError:
    """What to say of a run folder that can't be made or written."""
    return RunFolderError(f"{run}: can't be the run folder: {error.strerror}: choose another by checkpoint.folder")


EVENTS = "metrics.jsonl"
RANKS = "ranks.json"
RESULT = "result.json"
SUCCESSOR = "successor.json"
RECOVERY = "recovery"
STAGES = dict.fromkeys(("detected", "view", "acknowledged", "whole"))
FAILED = "checkpoint failed"
RESERVED = 16384  # bytes for the result, taken at the start: a full disk can't keep a job from saying how it ended
LONG = ("recoveries", "traffic", "idle")  # what a result does without when there is no room for it


def forget_end(run: Path | None) -> None:
    """Drop what a job of before has left of its end: from now on it is another's. To be called before any rank of that
    can die.
    """
    if run is None:
        return
    for name in RESULT, SUCCESSOR:
        with contextlib.suppress(OSError):
            (run / name).unlink(missing_ok=True)


class Record:
    """Writes them; `run` None leaves no files, `fresh` begins anew.

    ``metrics.jsonl`` has an event or a sample a line; ``ranks.json`` and ``result.json`` are replaced as a whole. A
    job goes on when the disk is full, or gone: events are kept until they can be written; that they can't be is said
    on the error output, as is a checkpoint that fails meanwhile.

    Raises
    ------
    RunFolderError
        when the folder can't be made.
    """

    def __init__(self, run: Path | None, fresh: bool = True) -> None:
        self._run = run
        self._unwritten = ""
        self._end = 0  # of the log, when this rank wrote last
        self._complained = False
        self._failed = False  # a checkpoint, since then
        if run is not None and fresh:
            try:
                run.mkdir(parents=True, exist_ok=True)
                for name in (EVENTS, RANKS, RESULT, SUCCESSOR):
                    (run / name).unlink(missing_ok=True)
                trace.forget(run)
            except OSError as error:
                raise unusable(run, error) from error
            self._reserve(run)

    @property
    def end(self) -> tuple[str, str] | None:
        """How the job has ended and why, once that is written."""
        result = self._read(RESULT)
        return None if result is None else (result["exit"], result["reason"])

    def successor(self, view: int) -> int | None:
        """The rank that has taken the scheduler's place in a later view than this, if one has."""
        found = self._read(SUCCESSOR)
        return found["rank"] if found is not None and found["view"] > view else None

    def succeed(self, rank: int, view: int) -> None:
        """A rank takes the scheduler's place, and makes this view. Who is only taken for dead finds that here."""
        self._replace(SUCCESSOR, {"rank": rank, "view": view})

    def _read(self, name: str) -> Any:
        if self._run is None:
            return None
        try:
            return json.loads((self._run / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def last_event(self) -> int:
        """The number of the last event that is written, 0 if none with a number is.

        What a rank that was killed has begun to write, and did not end, is cut off.
        """
        return max((event.get("number", 0) for event in self._events()), default=0)

    def _events(self) -> list[dict[str, Any]]:
        if self._run is None or not (self._run / EVENTS).exists():
            return []
        try:
            with (self._run / EVENTS).open("r+b") as file:
                whole, _, torn = file.read().rpartition(b"\n")
                if torn:
                    file.truncate(len(whole) + 1)
        except OSError as error:
            self._complain(error)
            return []
        return [json.loads(line) for line in whole.splitlines()]

    def recoveries(self) -> list[dict[str, Any]]:
        """What the events say of every recovery: rank, role, text; "detected" in Unix seconds, and the seconds from
        then to each stage, None for one that was not reached.
        """
        found: dict[int, dict[str, Any]] = {}
        lines: list[str] = []
        if self._run is not None:
            with contextlib.suppress(OSError):
                lines = (self._run / EVENTS).read_text(encoding="utf-8").splitlines()
        for event in (json.loads(line) for line in lines if RECOVERY in line):
            if event["event"] != RECOVERY:
                continue
            whole = found.setdefault(event["recovery"], {"recovery": event["recovery"], "text": "", **STAGES})
            whole |= {"rank": event["rank"], "role": event["role"]}
            if event["stage"] == "detected":
                whole["detected"] = event["time"]
            elif whole["detected"] is not None:
                whole[event["stage"]] = round(event["time"] - whole["detected"], 3)
            if event["stage"] == "view":
                whole["text"] = event["text"]
        return list(found.values())

    def event(self, event: dict[str, Any], number: int | None = None) -> None:
        """Append an event, with the time, and its number if it has one.

        A scheduler that was only taken for dead may write for a moment after its successor has begun to, or take over
        when that has ended the job: what is written already is left out, and whatever would follow the end.
        """
        if self._run is None:
            return
        numbered = {} if number is None else {"number": number}
        line = json.dumps({"time": round(time.time(), 3), **event, **numbered}) + "\n"
        self._unwritten += line
        try:
            with (self._run / EVENTS).open("ab", buffering=0) as file:
                if number is not None and file.tell() != self._end:
                    written = self._events()
                    if any(each.get("number", 0) >= number or each["event"] == "end" for each in written):
                        self._unwritten = self._unwritten.removesuffix(line)
                        return
                self._append(file)
        except OSError as error:
            self._complain(error)
            if event["event"] == FAILED and not self._failed:
                self._failed = True
                self._say(f"generation {event['generation']} was not written: {event['error']}")

    def _append(self, file: FileIO) -> None:
        """Write all that is not written, or nothing: half a line would be in the way of the next."""
        end, left = file.seek(0, os.SEEK_END), self._unwritten.encode()
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(end)
            raise
        self._end, self._unwritten = file.tell(), ""
        if self._complained:
            self._complained = self._failed = False
            self._say(f"{self._run}: can be written again")

    def ranks(self, ranks: list[dict[str, Any]]) -> None:
        """Replace the list of ranks: rank, role, whether it is a standby of the scheduler, host, pid."""
        self._replace(RANKS, ranks)

    def _replace(self, name: str, content: Any) -> None:
        if self._run is None:
            return
        temporary = (self._run / name).with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, self._run / name)
        except OSError as error:
            self._complain(error)
            with contextlib.suppress(OSError):
                temporary.unlink()

    def result(self, result: dict[str, Any]) -> None:
        """Write what came of the job; in short, if there is no room for more."""
        if self._run is None:
            return
        for content in result, {name: value for name, value in result.items() if name not in LONG}:
            try:
                self._write_reserved(self._run, json.dumps(content, indent=2) + "\n")
            except OSError as error:
                self._complain(error)
            else:
                return
        self._say(f"{result['exit']}: {result['reason']}")

    def _write_reserved(self, run: Path, text: str) -> None:
        run.mkdir(parents=True, exist_ok=True)
        reserved = self._reserved(run)
        with reserved.open("r+" if reserved.exists() else "w", encoding="utf-8") as file:
            file.write(text)
            file.truncate()
        os.replace(reserved, run / RESULT)

    def first_result(self, result: dict[str, Any]) -> bool:
        """Write what came of the job, unless another rank has done so; whether this one did."""
        if self._run is None:
            return False
        own = (self._run / RESULT).with_suffix(f".{os.getpid()}.tmp")
        try:
            own.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            os.link(own, self._run / RESULT)
        except FileExistsError:
            return False
        except OSError as error:
            self._complain(error)
            return False
        finally:
            with contextlib.suppress(OSError):
                own.unlink()
        return True

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
            self._say(f"the run folder can't be written: {error}; the job goes on, its log is kept until then")

    @staticmethod
    def _say(text: str) -> None:
        print(f"mpips: {text}", file=sys.stderr, flush=True)  # noqa: T201
