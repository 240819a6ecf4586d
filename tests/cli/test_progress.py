"""What a person sees of a job that runs."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mpips.cli import progress
from mpips.cli.progress import Metrics, Progress, summary


def shown(*events: dict[str, object]) -> list[str]:
    out = io.StringIO()
    with Progress(Console(file=out, width=60)) as display:
        display.show_all(events)
    return out.getvalue().splitlines()


def test_line_is_read_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    assert list(metrics.new()) == []
    path.write_text('{"event": "start"}\n{"event": "no')
    assert [event["event"] for event in metrics.new()] == ["start"]
    assert list(metrics.new()) == []
    with path.open("a") as file:
        file.write('te"}\nnot json\n' + json.dumps({"event": "end"}) + "\n")
    assert [event["event"] for event in metrics.new()] == ["note", "end"]


def test_progress_says_epoch_speed_loss_and_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    event = {"event": "progress", "epoch": 2, "epochs": 10, "examples": 1234567, "examples_per_second": 1234567.0}
    (line,) = shown(event | {"loss": 0.45678, "servers": {"1": 0.31, "2": 0.5}})
    assert line == "epoch 2/10 · 1,234,567 examples · 1.23 M examples/s · loss 0.4568 · servers 31% 50%"


def test_plain_lines_come_only_every_few_seconds() -> None:
    events = [{"event": "progress", "epoch": epoch, "epochs": 9, "examples": 0} for epoch in range(1, 9)]
    assert shown(*events) == ["epoch 1/9 · 0 examples"]


def test_what_matters_is_said_at_once() -> None:
    assert shown(
        {"event": "start", "ranks": 4},
        {"event": "evaluation", "epoch": 5, "auc": 0.79312, "logloss": 0.436, "nonzeros": 12345},
        {"event": "checkpoint", "generation": 3, "seconds": 0.25},
        {"event": "checkpoint failed", "error": "No space left on device"},
        {"event": "lost", "rank": 3, "role": "worker"},
        {"event": "note", "text": "12 malformed lines [skipped]"},
        {"event": "of a later version"},
    ) == [
        "started: 4 ranks",
        "epoch 5: auc 0.7931 · logloss 0.4360 · nonzeros 12,345",
        "checkpoint: generation 3 in 0.2 s",
        "checkpoint failed: No space left on device",
        "lost rank 3, a worker",
        "12 malformed lines [skipped]",
    ]


def test_summary_is_a_short_table() -> None:
    out = io.StringIO()
    result = {
        "exit": "finished",
        "metrics": {"auc": 0.79312, "nonzeros": 12345},
        "seconds": 7.25,
        "examples_per_second": 1.25e6,
        "roles": {"scheduler": 1, "servers": 1, "data_servers": 2, "spares": 0},
    }
    Console(file=out, width=70).print(summary(result, Path("/run")))
    assert [line.split(maxsplit=1) for line in out.getvalue().replace("run folder", "run-folder").splitlines()] == [
        ["exit", "finished".ljust(len("1 scheduler, 1 server, 2 data servers") + 2)],
        *(
            [name, value.ljust(len("1 scheduler, 1 server, 2 data servers") + 2)]
            for name, value in (
                ("auc", "0.7931"),
                ("nonzeros", "12,345"),
                ("seconds", "7.2"),
                ("examples/s", "1.25 M"),
                ("roles", "1 scheduler, 1 server, 2 data servers"),
                ("run-folder", "/run"),
            )
        ),
    ]
