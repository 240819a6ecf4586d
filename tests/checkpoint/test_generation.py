import shutil

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.checkpoint import CheckpointError, Generation, generations, next_generation
from mpips.checkpoint.layout import server_path
from mpips.checkpoint.master import write_master
from mpips.checkpoint.write import ServerFile
from mpips.table import TableSpec

from .generation_writer import (
    in_order,
    random_content,
    small_tables,
    write_generation,
    write_servers,
)

specs = st.builds(
    TableSpec,
    name=st.just("t"),
    kind=st.sampled_from(["dense", "sparse"]),
    rows=st.integers(1, 30_000),
    width=st.sampled_from([1, 2, 7]),
    dtype=st.sampled_from(["float32", "float64"]),
    slots=st.integers(0, 2),
)


@settings(deadline=None, max_examples=25)
@given(specs, st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_master_shows_every_table_whole_wherever_its_shards_were(tmp_path_factory, spec, servers, seed):
    content = random_content(spec, np.random.default_rng(seed))
    run = tmp_path_factory.mktemp("run")
    path = write_generation(run, 1, {"t": (spec, content)}, servers, seed)
    moved = shutil.move(run, run.with_name(run.name + "-moved"))
    with h5py.File(f"{moved}/{path.name}") as file:
        table = file["tables/t"]
        keys = table["keys"][:] if spec.kind == "sparse" else content.keys
        state = table["state"][:] if spec.slots else content.state
        shown = (keys, table["values"][:], state)
    if spec.kind == "sparse":
        shown, content = in_order(*shown), in_order(*content)
    for a, b in zip(shown, content, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(deadline=None, max_examples=25)
@given(specs, st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_any_number_of_servers_restores_what_any_number_wrote(tmp_path_factory, spec, wrote, reads, seed):
    rng = np.random.default_rng(seed)
    content = random_content(spec, rng)
    path = write_generation(tmp_path_factory.mktemp("run"), 1, {"t": (spec, content)}, wrote, seed)
    owner = rng.integers(0, reads, spec.shards)
    with Generation(path) as generation:
        assert generation.tables == {"t": spec}
        generation.verify(deep=True)
        if spec.kind == "dense":
            for shard in range(spec.shards):
                lo, hi = spec.shard_range(shard)
                values, state = generation.dense("t", lo, hi)
                np.testing.assert_array_equal(values, content.values[lo:hi])
                np.testing.assert_array_equal(state, content.state[lo:hi])
        else:
            blocks = [block for rank in range(reads) for block in generation.sparse("t", np.flatnonzero(owner == rank))]
            restored = in_order(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
            for a, b in zip(restored, in_order(*content), strict=True):
                np.testing.assert_array_equal(a, b)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_any_range_of_rows_is_read(tmp_path_factory, data):
    spec, content = small_tables()["w"]
    path = write_generation(tmp_path_factory.mktemp("run"), 1, {"w": (spec, content)}, 3)
    with Generation(path) as generation:
        for _ in range(10):
            lo = data.draw(st.integers(0, spec.rows))
            hi = data.draw(st.integers(lo, spec.rows))
            out = (np.empty((hi - lo, 1), np.float32), np.empty((hi - lo, 1, 2), np.float32))
            values, _ = generation.dense("w", lo, hi, out)
            assert values is out[0]
            np.testing.assert_array_equal(out[0], content.values[lo:hi])
            np.testing.assert_array_equal(out[1], content.state[lo:hi])
        with pytest.raises(IndexError, match="rows 0 to 39999"):
            generation.dense("w", 10, spec.rows + 1)


def test_blocks_of_a_large_table_are_bounded_and_complete(tmp_path, monkeypatch):
    monkeypatch.setattr("mpips.checkpoint.read.BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr("mpips.checkpoint.read.OPEN_FILES", 2)
    tables = small_tables()
    with Generation(write_generation(tmp_path, 1, tables, 5)) as generation:
        for name, (_, content) in tables.items():
            blocks = list(generation.values(name))
            assert max(values.nbytes for _, values in blocks) <= 1 << 14
            keys, values = in_order(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
            np.testing.assert_array_equal(keys, np.sort(content.keys))
            np.testing.assert_array_equal(values, in_order(*content)[1])


def test_what_the_scheduler_stored_comes_back(tmp_path):
    clocks = {1: {"w": {5: 7, 6: 9}}, 2: {"w": {5: 8, 6: 3}, "c": {6: 4}}}
    progress = {"epoch": 3, "done": [1, 2], "seconds": 0.5}
    path = write_generation(tmp_path, 12, small_tables(), clocks=clocks, job="[roles]\n# é", progress=progress)
    with Generation(path) as generation:
        assert generation.number == 12
        assert generation.clocks == {"w": {5: 7, 6: 3}, "c": {6: 4}}
        assert generation.progress == progress
        assert generation.job == "[roles]\n# é"
        assert generation.tables["w"].rule == {"name": "ftrl", "alpha": 0.1}


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_a_job_text_of_any_length_is_kept(tmp_path, size):
    with Generation(write_generation(tmp_path, 1, small_tables(), job="x" * size)) as generation:
        assert generation.job == "x" * size


def test_a_sparse_table_may_be_empty_and_a_shard_may_come_in_pieces(tmp_path):
    spec = TableSpec(name="s", kind="sparse", rows=10)
    for number, pieces in ((1, 0), (2, 3)):
        file = ServerFile(tmp_path, number, 4)
        for shard in range(spec.shards):
            file.sparse(spec, shard, np.empty(0, np.uint64), np.empty((0, 1)), np.empty((0, 1, 0)))
        for piece in range(pieces):
            file.sparse(spec, 3, np.array([piece], np.uint64), np.array([[piece + 0.5]]), np.empty((1, 1, 0)))
        file.close()
        with Generation(write_master(tmp_path, number, [4], [spec], "", {})) as generation:
            assert generation.rows("s") == pieces
            generation.verify(deep=True)
            for shards in (None, [3]):
                keys = [k for keys, _, _ in generation.sparse("s", shards) for k in keys]
                assert keys == list(range(pieces))
        with h5py.File(generation.path) as file:
            assert file["tables/s/values"][:, 0].tolist() == [piece + 0.5 for piece in range(pieces)]


def test_a_generation_without_its_master_does_not_count(tmp_path):
    tables = small_tables()
    first = write_generation(tmp_path, 1, tables)
    write_servers(tmp_path, 2, tables, {name: np.ones(t.shards) for name, (t, _) in tables.items()})
    tmp_path.joinpath("generation-000003.h5.tmp").write_bytes(b"half")
    assert generations(tmp_path) == [first]
    assert next_generation(tmp_path) == 4
    assert generations(tmp_path / "missing") == []
    assert next_generation(tmp_path / "missing") == 1


def test_master_is_refused_when_a_shard_was_written_by_none_or_by_two(tmp_path):
    spec, content = small_tables()["w"]
    owner = np.ones(spec.shards, int)
    write_servers(tmp_path, 1, {"w": (spec, content)}, {"w": owner})
    write_servers(tmp_path, 1, {"w": (spec, content)}, {"w": np.where(np.arange(spec.shards) == 3, 2, 0)})
    with pytest.raises(CheckpointError, match='table "w": shard 3 is in 2 server files'):
        write_master(tmp_path, 1, [1, 2], [spec], "", {})
    with pytest.raises(CheckpointError, match='table "w": shard 0 is in 0 server files'):
        write_master(tmp_path, 1, [2], [spec], "", {})
    with pytest.raises(CheckpointError, match=r"server-9\.h5: the file is missing"):
        write_master(tmp_path, 1, [1, 9], [spec], "", {})
    assert generations(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["generation-000001"]


def test_a_server_file_has_its_name_only_when_it_is_complete(tmp_path):
    spec, content = small_tables()["w"]
    final = server_path(tmp_path, 1, 1)
    file = ServerFile(tmp_path, 1, 1)
    file.dense(spec, 0, content.values[: spec.shard_rows], content.state[: spec.shard_rows])
    assert not final.exists()
    assert file.close() == final
    assert [path.name for path in final.parent.iterdir()] == ["server-1.h5"]
    given_up = ServerFile(tmp_path, 1, 2)
    given_up.abort()
    assert [path.name for path in final.parent.iterdir()] == ["server-1.h5"]


def test_dense_shards_out_of_order_or_of_wrong_shape_are_refused(tmp_path):
    spec, content = small_tables()["w"]
    n = spec.shard_rows
    file = ServerFile(tmp_path, 1, 1)
    file.dense(spec, 2, content.values[:n], content.state[:n])
    with pytest.raises(ValueError, match="shard 1 comes after shard 2"):
        file.dense(spec, 1, content.values[:n], content.state[:n])
    with pytest.raises(ValueError, match="reshape"):
        file.dense(spec, 3, content.values[: n - 1], content.state[:n])
    with pytest.raises(ValueError, match="shard 40"):
        file.dense(spec, 40, content.values[:0], content.state[:0])
    file.abort()
