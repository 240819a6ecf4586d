import errno
import json
import os
import shutil
from io import FileIO
from pathlib import Path

import pytest

from mpips.record import EVENTS, Record


def events(run):
    return [json.loads(line) for line in (run / EVENTS).read_text().splitlines()]


@pytest.mark.parametrize("torn", ["", '{"time": 1.0, "event": "ep'])
def test_a_successor_goes_on_after_the_last_whole_event(tmp_path, torn):
    first = Record(tmp_path)
    first.event({"event": "start"})
    first.event({"event": "epoch"}, 1)
    first.event({"event": "epoch"}, 2)
    with (tmp_path / EVENTS).open("a") as file:
        file.write(torn)
    second = Record(tmp_path, fresh=False)
    assert second.last_event() == 2
    second.event({"event": "epoch"}, 3)
    assert [event.get("number") for event in events(tmp_path)] == [None, 1, 2, 3]


def test_a_log_without_numbered_events_has_none_as_its_last(tmp_path):
    record = Record(tmp_path)
    assert record.last_event() == 0  # no file
    record.event({"event": "start"})
    assert record.last_event() == 0


def test_recoveries_are_told_by_their_stages(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("mpips.record.time.time", lambda: now[0])
    record = Record(tmp_path)
    record.event({"event": "note", "text": "no recovery"})

    def stage(number, rank, stage, text, at):
        now[0] = at
        record.event({"event": "recovery", "stage": stage, "recovery": number, "rank": rank, "role": "s", "text": text})

    stage(1, 0, "detected", "", 100.0)
    stage(1, 0, "view", "rank 5 is the scheduler now", 100.25)
    stage(2, 3, "detected", "", 101.0)
    stage(1, 0, "acknowledged", "on", 101.5)
    assert record.recoveries() == [
        {"recovery": 1, "rank": 0, "role": "s", "text": "rank 5 is the scheduler now"}
        | {"detected": 100.0, "view": 0.25, "acknowledged": 1.5, "whole": None},
        {"recovery": 2, "rank": 3, "role": "s", "text": ""}
        | {"detected": 101.0, "view": None, "acknowledged": None, "whole": None},
    ]


def test_a_job_without_a_run_folder_records_nothing():
    record = Record(None)
    record.event({"event": "start"}, 1)
    assert (record.last_event(), record.recoveries(), record.end, record.successor(0)) == (0, [], None, None)


def test_an_event_that_another_scheduler_has_written_is_left_out(tmp_path):
    mistaken = Record(tmp_path)
    mistaken.event({"event": "start"})
    mistaken.event({"event": "training"}, 1)
    successor = Record(tmp_path, fresh=False)
    for record, number in ((successor, 2), (successor, 3), (mistaken, 2), (mistaken, 3), (mistaken, 4), (successor, 4)):
        record.event({"event": "note"}, number)
    numbers = [json.loads(line).get("number") for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert numbers == [None, 1, 2, 3, 4]


def test_nothing_follows_the_end_that_another_scheduler_has_written(tmp_path):
    first, second = Record(tmp_path), Record(tmp_path, fresh=False)
    first.event({"event": "training"}, 1)
    second.last_event()
    first.event({"event": "end"}, 2)
    second.event({"event": "end"}, 3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["training", "end"]


@pytest.fixture
def room(monkeypatch):
    """Bytes that the disk still takes of the log, in a list."""
    left, opened = [1 << 20], Path.open

    class Log(FileIO):
        def write(self, data):
            n = min(len(data), left[0])
            left[0] -= n
            if not n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data[:n])

    def opens(path, mode="r", **more):
        return Log(path, mode) if mode == "ab" else opened(path, mode, **more)

    monkeypatch.setattr(Path, "open", opens)
    return left


@pytest.mark.parametrize("left", [0, 1, 40, 75, 100])
def test_events_that_find_a_full_disk_are_written_once_when_there_is_room(tmp_path, capsys, room, left):
    record = Record(tmp_path)
    record.event({"event": "start"}, 1)
    room[0] = left
    for number in (2, 3):
        record.event({"event": "checkpoint failed", "generation": number, "error": "no room"}, number)
    assert len(events(tmp_path)) == 1
    room[0] = 1 << 20
    record.event({"event": "note"}, 4)
    assert [event["number"] for event in events(tmp_path)] == [1, 2, 3, 4]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert "No space left on device" in said[0]
    assert said[1] == "mpips: generation 2 was not written: no room"
    assert said[2] == f"mpips: {tmp_path}: can be written again"


def test_a_result_for_which_there_is_no_room_is_written_in_short(tmp_path, monkeypatch, capsys):
    record = Record(tmp_path)
    write = Record._write_reserved

    def full(self, run, text):
        if len(text) > 16384:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, run, text)

    monkeypatch.setattr(Record, "_write_reserved", full)
    recoveries = [{"recovery": number, "text": "x" * 100} for number in range(200)]
    record.result({"exit": "finished", "reason": "all work is done", "recoveries": recoveries})
    assert json.loads((tmp_path / "result.json").read_text()) == {"exit": "finished", "reason": "all work is done"}
    assert "No space left on device" in capsys.readouterr().err


def test_a_run_folder_that_is_gone_is_made_again_for_the_result(tmp_path):
    record = Record(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    record.event({"event": "note"}, 1)
    record.result({"exit": "finished", "reason": ""})
    record.event({"event": "end"}, 2)
    assert record.end == ("finished", "")
    assert [event["event"] for event in events(tmp_path / "run")] == ["note", "end"]
