"""What a person sees of a job that runs."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from mpips.cli import progress
from mpips.cli.progress import Metrics, Progress, errors_by_class, summary


def shown(*events: dict[str, object]) -> list[str]:
    """What is said of events that are seen at the same time."""
    return shown_in_turn(events)


def shown_in_turn(*groups: Sequence[dict[str, object]]) -> list[str]:
    out = io.StringIO()
    with Progress(Console(file=out, width=60)) as display:
        for events in groups:
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


def test_the_speed_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    done = [(0, 0), (7, 0), (8, 2_000), (9, 2_000), (10, 4_000), (18, 16_000), (20, 20_000), (21, 1_000), (22, 4_000)]
    events = [
        {"event": "progress", "time": 5000.0 + time, "epoch": 1, "epochs": 9, "examples": examples}
        for time, examples in done
    ]
    speeds = [line.split(" · ")[2:] for line in shown(*events)]
    expected = [*[""] * 2, "2.00 k", "1.00 k", "1.33 k", "1.40 k", "1.60 k", "", "3.00 k"]
    assert speeds == [[f"{speed} examples/s"] if speed else [] for speed in expected]


def test_plain_lines_come_only_every_few_seconds() -> None:
    events = [{"event": "progress", "epoch": epoch, "epochs": 9, "examples": 0} for epoch in range(1, 9)]
    assert shown(*events) == ["epoch 1/9 · 0 examples"]


def test_what_matters_is_said_at_once() -> None:
    assert shown(
        {"event": "start", "ranks": 4},
        {"event": "evaluation", "number": 7, "epoch": 5, "auc": 0.79312, "logloss": 0.436, "nonzeros": 12345},
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


def stage(name: str, time: float, number: int = 1, text: str = "", role: str = "server") -> dict[str, object]:
    rank = {"event": "recovery", "recovery": number, "rank": 2, "role": role}
    return {"time": 1000.0 + time, **rank, "stage": name, "text": text}


RECOVERY = [
    stage("detected", 0.0),
    stage("view", 0.012, text="spare 5 takes its place"),
    stage("acknowledged", 0.04),
    stage("whole", 1.25, text="12 shards copied"),
]
TOLD = (
    "recovery 1: server 2 · spare 5 takes its place · view after 12 ms · acknowledged after 40 ms · whole after 1.2 s"
)


def test_a_recovery_is_told_when_something_is_done_and_when_nothing_is_missing_any_more() -> None:
    assert shown_in_turn(
        *([event] for event in [*RECOVERY[:3], {"event": "note", "text": "meanwhile"}, RECOVERY[3]])
    ) == [
        "recovery 1: server 2 · spare 5 takes its place · view after 12 ms · …",
        "meanwhile",
        TOLD,
    ]


def test_a_recovery_that_is_over_at_once_is_one_line_and_its_loss_is_not_told_apart() -> None:
    assert shown({"event": "lost", "rank": 2, "role": "server"}, *RECOVERY) == [TOLD]


def test_recoveries_at_the_same_time_are_told_apart() -> None:
    others = [stage(str(event["stage"]), 1.0, number=2, text="so", role="worker") for event in RECOVERY]
    lines = shown_in_turn([*RECOVERY[:2], *others[:2]], others[2:], RECOVERY[2:])
    assert [line.split(" · ")[0] for line in lines] == [
        "recovery 1: server 2",
        "recovery 2: worker 2",
        "recovery 2: worker 2",
        "recovery 1: server 2",
    ]


def test_a_recovery_that_the_end_of_the_job_cuts_short_is_told_as_far_as_it_came() -> None:
    last = shown(*RECOVERY[:2])[-1]
    assert last == "recovery 1: server 2 · spare 5 takes its place · view after 12 ms · …"


def test_on_a_terminal_a_recovery_has_a_line_of_its_own_below_the_progress_as_it_goes() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=140, force_terminal=True)) as display:
        display.show({"event": "progress", "epoch": 1, "examples": 5})
        display.show_all(RECOVERY[:3])
        assert display._live is not None
        display._live.refresh()
        under_way = out.getvalue()
        display.show_all(RECOVERY[3:])
    assert "5 examples" in under_way
    assert "acknowledged after 40 ms · …" in under_way
    assert TOLD not in under_way
    assert out.getvalue().count(TOLD) == 1


@pytest.mark.parametrize(
    ("recoveries", "said"),
    [
        ([("server", 1.25), ("worker", 0.05), ("server", 0.5)], "3: 2 servers, 1 worker; whole after 1.2 s at most"),
        (
            [("data server", 0.02), ("scheduler", None)],
            "2: 1 data server, 1 scheduler; whole after 20 ms at most; 1",
        ),
        ([("server", None)], "1: 1 server; 1 not whole"),
    ],
)
def test_summary_counts_recoveries(recoveries: list[tuple[str, float | None]], said: str) -> None:
    out = io.StringIO()
    result = {"recoveries": [{"role": role, "whole": whole} for role, whole in recoveries]}
    Console(file=out, width=100).print(summary(result, Path("/run")))
    (line,) = [line for line in out.getvalue().splitlines() if line.startswith("recoveries")]
    assert said in line


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


def test_errors_are_told_by_class_the_worst_first() -> None:
    confusion = [[97, 3], [0, 50]]
    assert errors_by_class(confusion) == "3.00% of class 0, 0.00% of class 1"
    assert errors_by_class([[0, 0], [1, 3]]) == "25.00% of class 1"  # of the other there is nothing
    many = [[10 * (i == j) + (i == j + 1) for j in range(9)] for i in range(9)]
    assert errors_by_class(many).endswith(" …")


def test_lists_are_not_told_as_figures() -> None:
    event = {"event": "evaluation", "epoch": 2, "accuracy": 0.96, "confusion": [[1, 2]]}
    assert shown(event) == ["epoch 2: accuracy 0.9600"]
    out = io.StringIO()
    result = {"exit": "finished", "metrics": {"accuracy": 0.96, "confusion": [[96, 4], [0, 0]]}}
    Console(file=out, width=70).print(summary(result, Path("/run")))
    assert "errors      4.00% of class 0" in out.getvalue()
    assert "[[" not in out.getvalue()
