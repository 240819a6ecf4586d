"""`mpips trace`, on files that servers might have left, and asking a scheduler that is only pretended."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest
import typer
from typer.testing import CliRunner

from mpips.cli.asking import AskError
from mpips.cli.trace import trace
from mpips.scheduler.requests import Answer, KeysToTrace, Requests
from mpips.trace import Share, TraceFile, Update

NAMES = [f"carrier={carrier}" for carrier in ("AA", "B6", "UA", "[WN]")]


def update(second: float, key: int, *shares: tuple[int, int, float], table: str = "w", **fields: object) -> Update:
    made = [Share(worker=worker, rank=rank, update=[number]) for worker, rank, number in shares]
    given = {"before": [0.5], "after": [0.25], "step": (7 << 32) + int(second), **fields}
    return Update(time=1.7e9 + second, server=1, table=table, key=key, shares=made, **given)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run folder of a job under way, whose features have names."""
    say(tmp_path, {"event": "start", "ranks": 8})
    with h5py.File(tmp_path / "names.h5", "w") as file:
        file.create_dataset("names", data=NAMES, dtype=h5py.string_dtype())
    return tmp_path


def say(run: Path, *events: dict[str, object]) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"time": 1.0, **event}) + "\n" for event in events)


def end(run: Path) -> None:
    (run / "result.json").write_text('{"exit": "finished", "reason": "all work is done"}')


@pytest.fixture
def recorded(run: Path) -> Path:
    """The same, over, with some updates."""
    say(run, {"event": "trace", "table": "w", "keys": [2, 3], "rows": 4})
    say(run, {"event": "trace", "table": "v", "keys": [2], "rows": 10})
    file = TraceFile(run, 1)
    file.append([update(1.25, 2, (4, 4, -0.125)), update(2, 3, (4, 4, 1e-9), (5, 6, 2.0), missed=7)])
    file.append([update(3, 2, (5, 6, 8.0), table="v", before=[1, 2, 3, 4, 5], after=[1, None, 2, 4, 5])])
    end(run)
    return run


def typed(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(trace)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def cells(output: str, word: str) -> list[str]:
    """Of the only line with a word."""
    (line,) = [line for line in output.splitlines() if word in line]
    return [cell.strip() for cell in line.split("│")[1:-1]]


def test_who_when_and_how_much_is_shown_by_name(recorded: Path) -> None:
    output = typed(recorded, "w", "carrier=UA")
    clock = time.strftime("%H:%M:%S", time.localtime(1.7e9 + 1)) + ".250"
    assert cells(output, clock) == [clock, "2", "carrier=UA", "1", "4", "7.1", "-0.125", "0.5", "0.25", "-0.25"]
    assert "the last 1 of 1 updates" in output
    assert typed(recorded, "w", 2) == output


def test_all_who_have_a_share_in_a_step_are_shown_and_the_sum(recorded: Path) -> None:
    output = typed(recorded, "w", "carrier=[WN]")
    lines = output.splitlines()
    first = next(i for i, line in enumerate(lines) if "carrier=[WN]" in line)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines[first : first + 3]]
    assert [row[4:7] for row in rows] == [["4", "7.2", "1e-09"], ["5 (rank 6)", "", "2"], ["sum", "", "2"]]
    assert "7 not recorded" in output


def test_without_a_table_all_that_is_recorded_is_shown_and_only_keys_that_have_names_get_them(recorded: Path) -> None:
    output = typed(recorded)
    assert "the last 3 of 3 updates" in output
    wide = cells(output, "1 2 3 4 …")
    assert wide[1:4] == ["v", "2", ""]
    assert wide[-2:] == ["1 not finite 2 4 …", "+0 not finite -1 +0 …"]
    assert "carrier=UA" in output
    assert "the last 2 of 3 updates" in typed(recorded, "--last", 2)


def test_what_is_not_recorded_is_said_with_what_to_do(run: Path) -> None:
    assert typed(run) == "no key is traced: name a table and keys, or set tables.NAME.trace in the job file\n"
    end(run)
    assert "no update of these keys is recorded; the job is over" in typed(run, "w", 0)


def test_a_name_that_no_feature_has_is_said_with_one_that_is_there(run: Path) -> None:
    with pytest.raises(AskError, match='no feature "carrier=XX": names are such as "carrier=AA"'):
        typed(run, "w", "carrier=XX")


def test_names_are_asked_for_where_there_are_none(run: Path) -> None:
    (run / "names.h5").unlink()
    with pytest.raises(AskError, match="its features have no names; or give a key, a whole number"):
        typed(run, "w", "carrier=UA")


def test_a_folder_without_a_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(AskError, match="no job has run in this folder"):
        typed(tmp_path)


class Pretended:
    """A scheduler that takes requests and answers as it was told to."""

    def __init__(self, run: Path, answer: Callable[[KeysToTrace], Answer]) -> None:
        self.asked: list[KeysToTrace] = []
        self._requests, self._answer = Requests(run, fresh=False), answer
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        while not self._leave.wait(0.01):
            for name, wanted in self._requests.new(time.monotonic()):
                assert isinstance(wanted, KeysToTrace)
                self.asked.append(wanted)
                self._requests.taken(name)
                self._requests.answer(name, self._answer(wanted))

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


Pretend = Callable[[Callable[[KeysToTrace], Answer]], Pretended]


@pytest.fixture
def scheduler(run: Path) -> Iterator[Pretend]:
    started: list[Pretended] = []

    def begin(answer: Callable[[KeysToTrace], Answer]) -> Pretended:
        started.append(Pretended(run, answer))
        return started[-1]

    yield begin
    for pretended in started:
        pretended.leave()


def test_a_running_job_is_asked_for_keys_that_it_does_not_trace_yet(run: Path, scheduler: Pretend) -> None:
    say(run, {"event": "trace", "table": "w", "keys": [2], "rows": 4})

    def answer(wanted: KeysToTrace) -> Answer:
        say(run, {"event": "trace", "table": "w", "keys": [0, 2], "rows": 4})
        return Answer("done", "2 keys are traced now")

    pretended = scheduler(answer)
    output = typed(run, "w", "carrier=UA", "carrier=AA")
    assert output == "done: 2 keys are traced now\nno update of these keys so far: look again, or --follow\n"
    assert "done" not in typed(run, "w", 0)
    assert pretended.asked == [KeysToTrace(table="w", keys=[0])]


def test_why_the_job_does_not_is_said(run: Path, scheduler: Pretend) -> None:
    scheduler(lambda wanted: Answer("refused", 'there is no table "x"'))
    with pytest.raises(AskError, match='keys 3 of table x: there is no table "x"'):
        typed(run, "x", 3)


def test_tracing_ends_of_some_keys_or_of_all(run: Path, scheduler: Pretend) -> None:
    say(run, {"event": "trace", "table": "w", "keys": [2, 3], "rows": 4})
    pretended = scheduler(lambda wanted: Answer("done", "fewer"))
    assert typed(run, "w", 3, "--stop") == "done: fewer\n"
    assert typed(run, "--stop") == "done: fewer\n"
    assert pretended.asked == [
        KeysToTrace(table="w", keys=[3], stop=True),
        KeysToTrace(table="w", keys=[2, 3], stop=True),
    ]


def test_following_shows_what_comes_until_the_job_is_over(run: Path) -> None:
    say(run, {"event": "trace", "table": "w", "keys": [2], "rows": 4})
    TraceFile(run, 1).append([update(1, 2, (4, 4, 1.5))])

    def go_on() -> None:
        for second in range(2, 5):
            time.sleep(0.1)
            TraceFile(run, 1).append([update(second, 2, (4, 4, float(second)), (5, 5, 1.0)), update(second, 3)])
        end(run)

    later = threading.Thread(target=go_on)
    later.start()
    lines = [line.partition("  ")[2] for line in typed(run, "w", 2, "--follow").splitlines() if "worker 4:" in line]
    later.join()
    assert lines == [
        f"2 carrier=UA  step 7.{second}  worker 4: {second}, worker 5: 1, sum {second + 1}  0.5 → 0.25 (-0.25)"
        for second in range(2, 5)
    ]
