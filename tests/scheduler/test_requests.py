"""Requests to a running job: each is seen once, survives a change of scheduler, and is answered."""

import json
from pathlib import Path

import pytest

from mpips.scheduler.requests import PAUSE, Answer, Asked, KeysToTrace, Requests, Sizes, Wanted


def looked(requests: Requests, at: float) -> list[Wanted]:
    return [wanted for _, wanted in requests.new(at)]


def test_a_request_reaches_the_scheduler_once_and_its_answers_come_back(tmp_path: Path) -> None:
    requests = Requests(tmp_path, fresh=True)
    asked = Asked(tmp_path, Sizes(servers=3))
    ((name, sizes),) = requests.new(1.0)
    assert sizes == Sizes(servers=3)
    assert looked(requests, 2.0) == []
    assert not asked.is_taken
    assert asked.answer() is None
    requests.taken(name)
    assert asked.is_taken
    for answer in (Answer("under way", "spare 5 becomes a server"), Answer("done", "3 servers, 2 workers")):
        requests.answer(name, answer)
        assert asked.answer() == answer
    asked.close()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_looked_at_only_now_and_then(tmp_path: Path) -> None:
    requests = Requests(tmp_path, fresh=True)
    assert looked(requests, 1.0) == []
    Asked(tmp_path, Sizes(servers=3))
    assert looked(requests, 1.0 + 0.9 * PAUSE) == []
    assert looked(requests, 1.0 + 1.1 * PAUSE) == [Sizes(servers=3)]


def test_a_request_that_was_not_taken_is_found_by_the_next_scheduler_and_one_of_an_earlier_job_is_not(
    tmp_path: Path,
) -> None:
    asked = Asked(tmp_path, Sizes(workers=4))
    requests = Requests(tmp_path, fresh=False)
    assert looked(requests, 1.0) == [Sizes(workers=4)]
    requests.answer("stale", Answer("done", "long ago"))
    assert looked(Requests(tmp_path, fresh=False), 1.0) == [Sizes(workers=4)]
    assert looked(Requests(tmp_path, fresh=True), 1.0) == []
    assert asked.is_taken
    assert list(tmp_path.iterdir()) == []


def test_requests_at_the_same_time_are_all_seen_and_answered_apart(tmp_path: Path) -> None:
    both = [Asked(tmp_path, Sizes(servers=count)) for count in (2, 3)]
    requests = Requests(tmp_path, fresh=False)
    for name, sizes in requests.new(1.0):
        requests.answer(name, Answer("done", str(sizes)))
    assert [asked.answer() for asked in both] == [Answer("done", "2 servers"), Answer("done", "3 servers")]


def test_requests_of_both_kinds_are_told_apart(tmp_path: Path) -> None:
    wanted = [
        Sizes(servers=2),
        KeysToTrace(table="w", keys=[3, 2**64 - 1]),
        KeysToTrace(table="w", keys=[3], stop=True),
    ]
    for each in wanted:
        Asked(tmp_path, each)
    (tmp_path / "other-x.request").touch()
    assert sorted(looked(Requests(tmp_path, fresh=False), 1.0), key=str) == sorted(wanted, key=str)
    assert str(wanted[1]) == f"keys 3, {2**64 - 1} of table w"


def test_a_request_that_is_withdrawn_is_not_seen(tmp_path: Path) -> None:
    asked = Asked(tmp_path, Sizes(servers=3))
    assert asked.withdraw()
    requests = Requests(tmp_path, fresh=False)
    assert looked(requests, 1.0) == []
    assert not asked.withdraw()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Input data was truncated"),
        ("[]", "must be a table"),
        ("{}", "must say how many servers, workers or both"),
        ('{"servers": 0}', "servers: must be a whole number ≥ 1, got 0"),
        ('{"serfers": 2}', 'serfers: unknown key; did you mean "servers"?'),
    ],
)
def test_a_file_that_is_no_request_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "scale-x.request").write_text(text)
    assert looked(Requests(tmp_path, fresh=False), 1.0) == []
    assert [path.name for path in tmp_path.iterdir()] == ["scale-x.answer"]
    answer = json.loads((tmp_path / "scale-x.answer").read_text())
    assert answer["stage"] == "refused"
    assert said in answer["text"]


def test_sizes_are_words_for_a_person() -> None:
    assert str(Sizes(servers=1, workers=4)) == "1 server and 4 workers"
    assert str(Sizes(workers=1)) == "1 worker"
    assert str(Sizes(spares=2)) == "2 more spares"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"table": "w"}', "keys: is missing"),
        ('{"table": "w", "keys": [-1]}', "keys[0]: must be a whole number ≥ 0, got -1"),
    ],
)
def test_keys_that_can_not_be_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "trace-x.request").write_text(text)
    assert looked(Requests(tmp_path, fresh=False), 1.0) == []
    assert said in json.loads((tmp_path / "trace-x.answer").read_text())["text"]
