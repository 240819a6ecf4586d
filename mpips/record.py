"""The files of a run folder that tell people and programs how a job goes: events, ranks, the result."""

import json
import os
import time
from pathlib import Path
from typing import Any

EVENTS = "metrics.jsonl"
RANKS = "ranks.json"
RESULT = "result.json"


class Record:
    """Writes them; `run` None leaves no files.

    ``metrics.jsonl`` has an event or a sample a line; ``ranks.json`` and ``result.json`` are replaced as a whole.
    """

    def __init__(self, run: Path | None) -> None:
        self._run = run
        if run is not None:
            run.mkdir(parents=True, exist_ok=True)
            for name in (EVENTS, RANKS, RESULT):
                (run / name).unlink(missing_ok=True)

    def event(self, event: dict[str, Any]) -> None:
        """Append an event, with the time."""
        self._write(EVENTS, json.dumps({"time": round(time.time(), 3), **event}) + "\n", append=True)

    def ranks(self, ranks: list[dict[str, Any]]) -> None:
        """Replace the list of ranks: rank, role, host, pid."""
        self._write(RANKS, json.dumps(ranks, indent=1) + "\n")

    def result(self, result: dict[str, Any]) -> None:
        """Write what came of the job."""
        self._write(RESULT, json.dumps(result, indent=2) + "\n")

    def _write(self, name: str, text: str, append: bool = False) -> None:
        if self._run is None:
            return
        path = self._run / name
        if append:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        else:
            temporary = path.with_suffix(".tmp")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
