"""`mpips scale`, answered by a scheduler that is only pretended."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mpips.cli import asking as module
from mpips.cli.asking import AskError
from mpips.cli.scale import scale
from mpips.scheduler.requests import Answer, Requests, Sizes


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run folder of a job under way."""
    (tmp_path / "metrics.jsonl").write_text('{"time": 1.0, "event": "start", "ranks": 8}\n')
    return tmp_path


class Pretended:
    """A scheduler that takes one request and gives the answers it was told to give."""

    def __init__(self, run: Path, answers: list[Answer], then: Callable[[], None]) -> None:
        self.asked: list[Sizes] = []
        self._requests, self._answers, self._then = Requests(run, fresh=False), answers, then
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        while not self._leave.is_set() and not self.asked:
            for name, sizes in self._requests.new(time.monotonic()):
                self._requests.taken(name)
                for answer in self._answers:
                    self._requests.answer(name, answer)
                    time.sleep(0.2)
                self._then()
                self.asked.append(sizes)
            time.sleep(0.01)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


Pretend = Callable[..., Pretended]


@pytest.fixture
def scheduler(run: Path) -> Iterator[Pretend]:
    started: list[Pretended] = []

    def begin(*answers: Answer, then: Callable[[], None] = lambda: None) -> Pretended:
        started.append(Pretended(run, list(answers), then))
        return started[-1]

    yield begin
    for pretended in started:
        pretended.leave()


def typed(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(scale)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def left(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


def test_what_was_done_is_said_as_it_goes(run: Path, scheduler: Pretend) -> None:
    pretended = scheduler(Answer("under way", "spare 6 becomes a server"), Answer("done", "3 servers, 4 workers"))
    assert typed(run, "servers=3", "workers=4") == "under way: spare 6 becomes a server\ndone: 3 servers, 4 workers\n"
    pretended.leave()
    assert pretended.asked == [Sizes(servers=3, workers=4)]
    assert left(run) == ["metrics.jsonl"]


def test_more_spares_are_asked_for_by_themselves(run: Path, scheduler: Pretend) -> None:
    with pytest.raises(AskError, match="ask for spares first, then for what they are to be"):
        typed(run, "spares=+2", "servers=3")
    pretended = scheduler(Answer("done", "2 more spares: ranks 6, 7"))
    assert typed(run, "spares=+2") == "done: 2 more spares: ranks 6, 7\n"
    pretended.leave()
    assert pretended.asked == [Sizes(spares=2)]


def test_why_not_is_said(run: Path, scheduler: Pretend) -> None:
    scheduler(Answer("refused", "there are no spares left: 2 are needed"))
    with pytest.raises(AskError, match="3 servers: there are no spares left: 2 are needed"):
        typed(run, "servers=3")
    assert left(run) == ["metrics.jsonl"]


def test_a_job_that_ends_meanwhile_is_no_hang(run: Path, scheduler: Pretend) -> None:
    result = {"exit": "interrupted", "reason": "SIGINT received"}
    scheduler(Answer("under way", "wait"), then=lambda: (run / "result.json").write_text(json.dumps(result)) and None)
    with pytest.raises(AskError, match="the job is over: interrupted: SIGINT received"):
        typed(run, "servers=3")


def test_nobody_who_answers_is_said_and_the_request_withdrawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with pytest.raises(AskError, match=r"the job has not answered .* does it still run"):
        typed(run, "servers=3")
    assert left(run) == ["metrics.jsonl"]


def test_a_folder_without_a_running_job_is_named(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(AskError, match="none: no such run folder"):
        typed(run / "none", "servers=3")
    with pytest.raises(AskError, match="a file: choose the run folder"):
        typed(run / "metrics.jsonl", "servers=3")
    with pytest.raises(AskError, match="no job has run in this folder"):
        typed(tmp_path_factory.mktemp("empty"), "servers=3")
    (run / "result.json").write_text('{"exit": "finished", "reason": "all work is done"}')
    with pytest.raises(AskError, match="the job is over: finished"):
        typed(run, "servers=3")


def test_every_mistake_in_what_is_typed_is_said_at_once(run: Path) -> None:
    with pytest.raises(AskError) as caught:
        typed(run, "servers=0", "wrkers=2", "workers=many", "spares=1", "servers=2")
    assert str(caught.value).splitlines() == [
        'wrkers=2: there is no "wrkers" to scale; did you mean "workers"?',
        "spares=1: say how many more: spares=+N",
        "servers=2: servers is there twice",
        "servers: must be a whole number ≥ 1, got 0",
        'workers: must be a whole number ≥ 1, got "many"',
    ]
    assert left(run) == ["metrics.jsonl"]
