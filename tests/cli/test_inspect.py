import subprocess
import sys

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from mpips.checkpoint import CheckpointError, Generation, generations
from mpips.checkpoint.layout import server_path
from mpips.checkpoint.master import write_master
from mpips.checkpoint.write import ServerFile
from mpips.cli.compare import Difference
from mpips.cli.inspect import Summary, inspect
from mpips.table import TableSpec

W = TableSpec(name="w", rows=5_000, rule={"name": "ftrl", "alpha": 0.1}, slots=2)
C = TableSpec(name="c", kind="sparse", rows=100, width=2, dtype="float64")
VALUES = np.zeros((5_000, 1), np.float32)
VALUES[[7, 4_000, 4_999], 0] = 0.5, -3.25, 2.0
KEYS = np.array([2**63 + 5, 3, 10**12], np.uint64)
COUNTS = np.array([[1.0, 0.0], [2.0, np.nan], [-4.0, 8.0]])


def write(run, number):
    """A generation of two servers, with names for the rows of w."""
    for rank in (1, 2):
        file = ServerFile(run, number, rank)
        for shard in range(rank - 1, W.shards, 2):
            lo, hi = W.shard_range(shard)
            file.dense(W, shard, VALUES[lo:hi], np.zeros((hi - lo, 1, 2)))
        for shard in range(rank - 1, C.shards, 2):
            mine = KEYS % C.shards == shard
            file.sparse(C, shard, KEYS[mine], COUNTS[mine], np.empty((mine.sum(), 2, 0)))
        file.clocks({"w": {3: 40 + number, 4: 50}})
        file.close()
    with h5py.File(run / "names.h5", "w") as file:
        names = [f"carrier×flight=[UA]×{i}" for i in range(5_000)]
        file.create_dataset("names", data=names, dtype=h5py.string_dtype())
    return write_master(run, number, [1, 2], [W, C], "", {"epoch": number}, run / "names.h5")


@pytest.fixture
def run(tmp_path):
    write(tmp_path / "run", 1)
    write(tmp_path / "run", 2)
    return tmp_path / "run"


def shown(*arguments):
    app = typer.Typer()
    app.command()(inspect)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def line_with(output, *words):
    lines = [line for line in output.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, (words, output)
    return lines[0]


def test_a_run_folder_shows_generations_tables_statistics_and_largest_weights(run):
    output = shown(run)
    assert "epoch 2" in line_with(output, "shown below")
    line_with(output, "w", "dense", "5,000 × 1", "float32", "ftrl alpha=0.1", "60 kB", "3:42 4:50")
    line_with(output, "c", "sparse", "3 × 2", "float64", "add", "72 B")
    line_with(output, "w", " 3 ", "3.8487", "-3.25", " 2 ")
    line_with(output, "c", " 5 ", "9.21954", "-4", " 8 ", " 1 ")
    order = [output.index(f"carrier×flight=[UA]×{row} ") for row in (4_000, 4_999, 7)]
    assert order == sorted(order)
    line_with(output, str(2**63 + 5), " 0 ", " 1 ")


def test_one_file_one_table_and_the_number_of_weights_can_be_chosen(run):
    output = shown(run / "generation-000001.h5", "--table", "w", "--top", 1)
    assert "generation 1 ·" in output
    assert "carrier×flight=[UA]×4000 " in output
    assert "carrier×flight=[UA]×7 " not in output
    assert "sparse" not in output
    assert "3:41" in shown(run, "--generation", 1)


def test_names_may_be_missing(run):
    (run / "names.h5").unlink()
    output = shown(run, "--table", "w")
    assert "carrier" not in output
    line_with(output, "4000", "-3.25")


def test_a_damaged_older_generation_is_listed_as_such(run):
    server_path(run, 1, 2).unlink()
    line_with(shown(run), "server-2.h5: the file is missing")


def test_what_a_generation_has_written_itself_is_told_from_all_that_it_needs(run):
    file = ServerFile(run, 3, 1)
    file.dense(W, 0, VALUES[: W.shard_rows], np.zeros((W.shard_rows, 1, 2)))
    file.clocks({"w": {3: 43}})
    file.close()
    write_master(run, 3, [1], [W, C], "", {"epoch": 3}, run / "names.h5", 2)
    before, own = (sum(path.stat().st_size for path in run.glob(f"generation-00000{i}/*")) for i in (2, 3))
    line_with(shown(run), "epoch 3", f" {own / 1e3:.3g} kB", f" {(before + own) / 1e3:.3g} kB")
    line_with(shown(run, "--generation", "2"), "shown below", f" {before / 1e3:.3g} kB │ {before / 1e3:.3g} kB")


def test_npy_holds_the_values(run, tmp_path):
    shown(run, "--table", "w", "--export", tmp_path / "w.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), VALUES)
    shown(run, "--table", "c", "--export", tmp_path / "c.npy")
    records = np.sort(np.load(tmp_path / "c.npy"), order="key")
    np.testing.assert_array_equal(records["key"], np.sort(KEYS))
    np.testing.assert_array_equal(records["value"], COUNTS[np.argsort(KEYS)])


def test_csv_holds_key_name_and_value(run, tmp_path):
    shown(run, "--table", "w", "--export", tmp_path / "w.csv")
    lines = (tmp_path / "w.csv").read_text().splitlines()
    assert len(lines) == 5_001
    assert lines[0] == "key,name,value"
    assert lines[4_001] == "4000,carrier×flight=[UA]×4000,-3.25"
    shown(run, "--table", "c", "--export", tmp_path / "c.csv")
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert lines[0] == "key,name,value_0,value_1"
    assert set(lines[1:]) == {"9223372036854775813,,1.0,0.0", "3,,2.0,nan", "1000000000000,,-4.0,8.0"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such run folder or checkpoint"),
        (["."], "no complete generation in this folder"),
        (["run", "--generation", "9"], "no complete generation 9; there are: 2, 1"),
        (["run", "--table", "v"], 'no table "v"; there are: c, w'),
        (["run", "--export", "x.npy"], "choose the table to export with --table: c, w"),
        (["run", "--table", "w", "--export", "x.txt"], "can export to .npy, .csv or .joblib only"),
        (["run", "--table", "w", "--export", "no/x.npy"], "cannot write: No such file or directory"),
        (["run/names.h5"], "an HDF5 file, but not the master of an mpips checkpoint"),
    ],
)
def test_each_mistake_is_one_clear_line(run, monkeypatch, arguments, message):
    monkeypatch.chdir(run.parent)
    with pytest.raises(CheckpointError) as error:
        shown(*arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(run.parent.glob("x*"))


def test_inspect_imports_neither_mpi_nor_numba():
    script = "import sys, mpips.cli.inspect; print({'mpi4py', 'numba'} & {n.split('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_what_has_changed_between_two_generations_is_shown(tmp_path):
    run = tmp_path / "run"
    write(run, 1)
    before, counts = VALUES.copy(), COUNTS.copy()
    try:
        VALUES[7], VALUES[2] = VALUES[7] + 2.5, -1.0
        COUNTS[0, 0] = 11.0
        write(run, 2)
    finally:
        VALUES[:], COUNTS[:] = before, counts
    output = shown(run, "--against", "1")
    assert "from generation 1 to 2" in output
    assert line_with(output, "w", "2", "0", "0")
    assert output.index("carrier×flight=[UA]×7 ") < output.index("carrier×flight=[UA]×2 ")
    assert "+2.5" in output
    assert "+10" in output


def test_keys_that_came_and_went_are_counted(tmp_path):
    run = tmp_path / "run"
    write(run, 1)
    before = KEYS.copy()
    try:
        KEYS[1] = 4
        write(run, 2)
    finally:
        KEYS[:] = before
    with Generation(generations(run)[1]) as old, Generation(generations(run)[0]) as new:
        found = Difference(old, new, "c", 5)
        same = Difference(new, new, "w", 5)
    assert (found.new, found.gone, found.changed) == (1, 1, 2)
    assert sorted(found.top) == [(3, 0, 2.0, 0.0), (4, 0, 0.0, 2.0)]
    assert (same.changed, same.norm, same.top) == (0, 0.0, [])
    assert same.cosine == pytest.approx(1.0)


def test_sizes_of_values_are_counted_by_decades(run):
    with Generation(generations(run)[0]) as generation:
        assert Summary(generation, "w", 0).decades == {-1: 1, 0: 2}
        assert Summary(generation, "c", 0).decades == {0: 4}
