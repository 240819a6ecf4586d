"""The files of traced updates: bounded, read while they grow, and each update once."""

import msgspec
import numpy as np

from mpips.trace import Share, Trace, TraceFile, Update, forget


def update(time, key=7, server=1, worker=4, step=None, number=1.0):
    shares = [Share(worker=worker, rank=worker, update=[number])]
    step = int(time) if step is None else step
    return Update(time=time, server=server, table="w", key=key, step=step, shares=shares, before=[0.0], after=[number])


def test_updates_of_all_servers_come_in_the_order_of_time(tmp_path):
    TraceFile(tmp_path, 1).append([update(1.0), update(4.0)])
    TraceFile(tmp_path, 2).append([update(3.0, server=2), update(5.0, server=2)])
    TraceFile(tmp_path, 1).append([update(6.0)])
    found = Trace(tmp_path).new()
    assert [(each.time, each.server) for each in found] == [(1.0, 1), (3.0, 2), (4.0, 1), (5.0, 2), (6.0, 1)]
    assert found[0] == update(1.0)


def test_no_more_than_two_files_of_the_limit_are_kept_and_these_are_the_last(tmp_path):
    file = TraceFile(tmp_path, 1, limit=10_000)
    for second in range(1_000):
        file.append([update(float(second))])
    found = Trace(tmp_path).new()
    assert [each.time for each in found] == list(range(1_000 - len(found), 1_000))
    assert 50 < len(found) < 500
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20_500


def test_who_follows_sees_each_update_once_also_when_a_file_is_full_meanwhile(tmp_path):
    file, trace, seen = TraceFile(tmp_path, 1, limit=2_000), Trace(tmp_path), []
    for second in range(300):
        file.append([update(float(second))])
        if second % 7 == 0:
            seen += trace.new()
    seen += trace.new()
    assert [each.time for each in seen] == list(range(300))


def test_a_line_that_is_not_complete_waits_for_its_end(tmp_path):
    trace, path = Trace(tmp_path), tmp_path / "trace-1.jsonl"
    line = msgspec.json.encode(update(1.0)) + b"\n"
    path.write_bytes(line + line[:20])
    assert len(trace.new()) == 1
    path.write_bytes(line + line.replace(b"1.0", b"2.0"))
    assert [each.time for each in trace.new()] == [2.0]


def test_what_was_lost_with_a_server_and_made_again_counts_once(tmp_path):
    TraceFile(tmp_path, 1).append([update(1.0, step=1), update(2.0, step=2)])
    TraceFile(tmp_path, 2).append([update(3.0, step=2, server=2), update(4.0, step=2, server=2, worker=5)])
    assert [(each.server, each.step, each.shares[0].worker) for each in Trace(tmp_path).new()] == [
        (1, 1, 4), (2, 2, 4), (2, 2, 5),
    ]  # fmt: skip


def test_numbers_that_are_not_finite_and_the_largest_keys_survive(tmp_path):
    TraceFile(tmp_path, 1).append([update(1.0, key=2**64 - 1, step=2**63, number=np.inf)])
    (found,) = Trace(tmp_path).new()
    assert (found.key, found.step) == (2**64 - 1, 2**63)
    assert found.after == [None]


def test_what_is_forgotten_is_gone(tmp_path):
    TraceFile(tmp_path, 1).append([update(1.0)])
    (tmp_path / "metrics.jsonl").touch()
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
