"""A generation holds what has changed since the one before, and shows every table whole all the same."""

import contextlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.checkpoint import CheckpointError, Generation, drop_failed, drop_old, drop_unfinished, generations
from mpips.checkpoint.folder import number
from mpips.checkpoint.layout import master_path, server_path
from mpips.checkpoint.master import write_master
from mpips.table import TableSpec
from tests.checkpoint.generation_writer import in_order, random_content, small_tables, write_servers


class Job:
    """Tables that change from one generation to the next, by shards, which then have other servers."""

    def __init__(self, run, seed=0, servers=3):
        self.run, self.servers, self.rng = run, servers, np.random.default_rng(seed)
        self.tables = small_tables(seed)
        self.number = 0

    def write(self, changed, base):
        """Change some shards of each table, given by name, and write them; `base` False writes all."""
        owners, before = {}, self.number or None
        for name, (spec, content) in self.tables.items():
            shard_of = (
                content.keys >> np.uint64(spec.shard_bits) if spec.kind == "dense" else content.keys % spec.shards
            )
            rows = np.isin(shard_of, changed.get(name, []))
            content.values[rows] = self.rng.standard_normal((rows.sum(), spec.width))
            content.state[rows] += 1
            due = np.isin(np.arange(spec.shards), changed.get(name, [])) | (not base or before is None)
            owners[name] = np.where(due, self.rng.integers(1, self.servers + 1, spec.shards), -1)
        self.number += 1
        ranks = write_servers(self.run, self.number, self.tables, owners)
        specs = [spec for spec, _ in self.tables.values()]
        return write_master(self.run, self.number, ranks, specs, "", {}, base=before if base else None)

    def check(self, path):
        """Our reader, and plain h5py, see every table as it is."""
        w, c = self.tables["w"][1], self.tables["c"][1]
        with Generation(path) as generation:
            generation.verify(deep=True)
            values, state = generation.dense("w", 0, len(w.values))
            np.testing.assert_array_equal(values, w.values)
            np.testing.assert_array_equal(state, w.state)
            blocks = [np.concatenate(parts) for parts in zip(*generation.sparse("c"), strict=True)]
            for found, expected in zip(in_order(*blocks), in_order(c.keys, c.values, c.state), strict=True):
                np.testing.assert_array_equal(found, expected)
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["tables/w/values"][:], w.values)
            np.testing.assert_array_equal(file["tables/w/state"][:], w.state)
            plain = in_order(file["tables/c/keys"][:], file["tables/c/values"][:])
            for found, expected in zip(plain, in_order(c.keys, c.values), strict=True):
                np.testing.assert_array_equal(found, expected)


CHANGES = st.fixed_dictionaries(
    {"w": st.sets(st.integers(0, 19), max_size=6), "c": st.sets(st.integers(0, 15), max_size=4)}
)


@settings(max_examples=10)
@given(changes=st.lists(st.tuples(CHANGES, st.booleans()), min_size=2, max_size=5), keep=st.integers(1, 3))
def test_every_generation_is_whole_and_has_only_what_changed(tmp_path_factory, changes, keep):
    job = Job(tmp_path_factory.mktemp("run"))
    for changed, all_of_it in changes:
        changed = {name: sorted(shards) for name, shards in changed.items()}
        path = job.write(changed, base=not all_of_it)
        drop_old(job.run, keep)
        job.check(path)
    kept = generations(job.run)
    numbers = [number(master) for master in kept]
    assert numbers[:keep] == list(range(len(changes), 0, -1))[:keep]
    assert len(numbers) <= (keep if keep == 1 else keep + 2)
    needed = set()
    for master in kept:
        with Generation(master) as generation:
            generation.verify(deep=True)
            needed |= {server_path(job.run, file.generation, file.rank) for file in generation.files}
    assert set(job.run.glob("*/*")) == needed


def test_one_percent_of_the_shards_takes_no_more_than_two_percent_of_the_bytes(tmp_path):
    spec = TableSpec(name="w", rows=104 << 18, rule={"name": "add"})
    tables = {"w": (spec, random_content(spec, np.random.default_rng(0)))}
    everything = np.ones(spec.shards)
    write_servers(tmp_path, 1, tables, {"w": everything})
    write_master(tmp_path, 1, [1], [spec], "", {})
    changed = np.where(np.arange(spec.shards) < spec.shards // 100, 1, -1)
    write_servers(tmp_path, 2, tables, {"w": changed})
    path = write_master(tmp_path, 2, [1], [spec], "", {}, base=1)
    assert server_path(tmp_path, 2, 1).stat().st_size + path.stat().st_size <= 0.02 * spec.rows * 4
    with Generation(path) as generation:
        assert [file.generation for file in generation.files] == [1, 2]


def test_a_generation_is_refused_whose_base_is_damaged(tmp_path):
    job = Job(tmp_path)
    job.write({}, base=False)
    file = next((tmp_path / "generation-000001").iterdir())
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=f"{file.name}: truncated"):
        job.write({"w": [0]}, base=True)
    assert generations(tmp_path) == [master_path(tmp_path, 1)]


def test_files_of_which_little_is_needed_are_to_be_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr("mpips.checkpoint.read.SLACK", 50_000)
    job = Job(tmp_path, servers=1)
    worn = []
    for last in range(20, 15, -1):
        path = job.write({"w": list(range(1, last)), "c": list(range(1, 16))}, base=True)
        with Generation(path) as generation:
            worn.append(generation.worn())
    assert worn[:2] == [0, 0]
    assert worn[2] > 0  # one shard of each table is still in the files of the first, one in those of the second
    with Generation(job.write({"w": list(range(20)), "c": list(range(16))}, base=True)) as generation:
        assert generation.worn() == 0
        assert {file.generation for file in generation.files} == {6}


def test_a_master_that_cannot_be_read_has_no_server_file_dropped(tmp_path):
    job = Job(tmp_path)
    for _ in range(3):
        job.write({"w": [3]}, base=True)
    before = set(tmp_path.glob("*/*"))
    master_path(tmp_path, 2).write_bytes(b"damaged")
    drop_old(tmp_path, 2)
    assert set(tmp_path.glob("*/*")) == before
    assert master_path(tmp_path, 1).exists()  # the others share its files


def fit(run):
    """The generations that can be read whole."""
    found = []
    for master in generations(run):
        with contextlib.suppress(CheckpointError), Generation(master) as generation:
            generation.verify(deep=True)
            found.append(generation.number)
    return found


def test_no_file_is_needed_by_every_generation_that_is_kept(tmp_path):
    job, turns = Job(tmp_path), 7
    for generation in range(1, 4 * turns):
        due = {
            name: [s for s in range(spec.shards) if (s + generation) % turns == 0]
            for name, (spec, _) in job.tables.items()
        }
        job.write(due, base=True)
        drop_old(tmp_path, 2)
        kept = [number(master) for master in generations(tmp_path)]
        assert kept[:2] == [generation, generation - 1][: len(kept)]
        assert len(kept) <= 4
        if generation <= turns:
            continue
        assert kept[-1] >= generation - 2 * turns
        assert not set.intersection(*map(needed_by, generations(tmp_path)))
    damaged = min(needed_by(generations(tmp_path)[0]))
    damaged.unlink()
    assert 0 < len(fit(tmp_path)) < len(kept)


def needed_by(master):
    """The server files of a generation."""
    with Generation(master) as generation:
        return {server_path(master.parent, file.generation, file.rank) for file in generation.files}


def test_generations_found_damaged_go_and_not_the_one_that_the_job_went_on_from(tmp_path):
    job = Job(tmp_path)
    for _ in range(4):
        job.write({}, base=False)
    for damaged in (3, 4):
        next((tmp_path / f"generation-{damaged:06d}").iterdir()).unlink()
    job.number = 2
    specs = [spec for spec, _ in job.tables.values()]
    ranks = write_servers(tmp_path, 6, job.tables, {spec.name: np.ones(spec.shards) for spec in specs})
    write_master(tmp_path, 6, ranks, specs, "", {}, base=2)
    drop_old(tmp_path, 2, base=2)
    assert fit(tmp_path) == [6, 2]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "generation-000002",
        "generation-000006",
    ]


def test_what_was_never_completed_goes_and_nothing_else(tmp_path):
    job = Job(tmp_path)
    job.write({}, base=False)
    job.write({"w": [3]}, base=True)
    before = set(tmp_path.rglob("*"))
    everything = {spec.name: np.ones(spec.shards) for spec, _ in job.tables.values()}
    for failed in (3, 4, 5):
        write_servers(tmp_path, failed, job.tables, everything)
    master_path(tmp_path, 4).with_suffix(".h5.tmp").write_text("half")
    drop_failed(tmp_path, 3)
    assert not (tmp_path / "generation-000003").exists()
    assert (tmp_path / "generation-000004").exists()
    drop_unfinished(tmp_path)
    assert set(tmp_path.rglob("*")) == before
    drop_failed(tmp_path, 2)
    assert set(tmp_path.rglob("*")) == before
    drop_unfinished(tmp_path / "none")
