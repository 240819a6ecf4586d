"""Networks and images in the job file."""

from pathlib import Path

import pytest
from PIL import Image

from mpips.job import JobFileError, load
from mpips.start import plan_of
from tests.images import SIDE, write_shapes

GOOD = """\
[data]
format = "idx"
files = ["train-images-idx3-ubyte.gz"]
test_files = ["t10k-images-idx3-ubyte.gz"]
batch = 20

[data.images]
shift = 1.0

[algorithm]
name = "neural"
passes = 3

[algorithm.neural]
rate = 0.1
layers = [
    { layer = "convolution", channels = 4, size = 3 },
    { layer = "relu" },
    { layer = "pooling" },
    { layer = "connected", units = 40 },
    { layer = "connected" },
]
"""
NEURAL = "algorithm.neural"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_shapes(tmp_path)
    return tmp_path


def mistakes_of(text: str, *overrides: str) -> list[str]:
    Path("x.toml").write_text(text)
    with pytest.raises(JobFileError) as caught:
        load("x.toml", overrides)
    return [mistake.removeprefix("x.toml") for mistake in caught.value.mistakes]


def test_a_network_makes_its_tables() -> None:
    Path("x.toml").write_text(GOOD)
    plan = plan_of(Path("x.toml"), ["data.batch=8"])
    tables = {table.name: table for table in plan.tables(3)}
    assert list(tables) == ["convolution1", "connected1", "connected2"]
    assert [(table.rows, table.width) for table in tables.values()] == [(4, 10), (40, 101), (3, 41)]
    assert [table.rule["name"] for table in tables.values()] == ["add", "momentum", "add"]
    assert plan.classes == 3
    assert plan.model is None
    larger = {table.name: table.rule["name"] for table in plan_of(Path("x.toml"), ["data.batch=100"]).tables(3)}
    assert set(larger.values()) == {"add"}


@pytest.mark.parametrize(("push", "rule"), [("activations", "momentum"), ("gradient", "add")])
def test_how_a_layer_pushes_can_be_forced(push: str, rule: str) -> None:
    Path("x.toml").write_text(GOOD.replace("units = 40", f'units = 40, push = "{push}"'))
    for batch in (8, 100):
        tables = plan_of(Path("x.toml"), [f"data.batch={batch}"]).tables(3)
        assert tables[1].rule["name"] == rule


@pytest.mark.parametrize(
    ("old", "new", "place", "text"),
    [
        ('layer = "relu"', 'layer = "rel"', "layers[1].layer", 'got "rel"; did you mean "relu"?'),
        ('layer = "relu"', "units = 3", "layers[1].layer", 'is missing; it must be "convolution", "pooling"'),
        ('layer = "relu"', "layer = 7", "layers[1].layer", "must be a name, got 7"),
        ("size = 3", "size = 3, sise = 3", "layers[0].sise", 'unknown key; did you mean "size"?'),
        ("size = 3", "size = 0", "layers[0].size", "must be a whole number ≥ 1, got 0"),
        ("size = 3", "size = 13", "layers[0].size", f"filters of 13×13 don't fit into 1×{SIDE}×{SIDE}"),
        (', size = 3 }', " }", "layers[0].size", "is missing"),
        ('"connected" },', '"connected", units = 4 },', "layers[4].units", "ends with 4 numbers, but the data have 3"),
        ('    { layer = "connected" },\n', "", "layers[3].units", "ends with 40 numbers, but the data have 3 classes"),
        ("rate = 0.1", "rate = -1", "rate", "must be a number > 0, got -1"),
    ],
)  # fmt: skip
def test_a_layer_that_is_wrong_is_told_with_its_place(old: str, new: str, place: str, text: str) -> None:
    found = mistakes_of(GOOD.replace(old, new, 1))
    assert len(found) == 1, found
    assert f"{NEURAL}.{place}: " in found[0]
    assert text in found[0]


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ('algorithm.table="w"', 'algorithm.table: is for name = "linear": a network makes its own tables'),
        ("roles.workers=3", "roles.workers: must be a multiple of 2, the network's partitions; got 3"),
        ("plan=[{at=1, workers=5}]", "plan[0].workers: must be a multiple of 2, the network's partitions; got 5"),
        ('algorithm.name="linear"', 'data.format: the algorithm "linear" has no use for images'),
        ('data.format="libsvm"', 'data.format: the algorithm "neural" needs images'),
        ('data.label="y"', 'label: is not for format "idx"; leave it out'),
        ("data.images.height=20", "images: an IDX file has its own size and one channel; leave them out"),
        ('data.format="folders"', "images.height and images.width are missing"),
        ('data.files=["nothing.gz"]', "nothing.gz: no such file"),
        ('data.images.memory="much"', "data.images.memory: must be a size above 0"),
        ("data.images.shift=inf", "data.images.shift: must be a number, got inf"),
        ("data.images.bend=1e39", "data.images.bend: must be a number ≥ 0 and ≤ 10000, got 1e+39"),
        ("tables.connected1={rows=2}", "tables.connected1: is the name of a table that the network makes"),
        ("algorithm.neural.warmup=5", "algorithm.neural.warmup: must be at most algorithm.passes, which is 3; got 5"),
        ('algorithm.neural.layers=[{layer="relu"}]', "layers[0]: the network ends with 1×12×12 numbers"),
        ('data.files=["*-images-*"]', "t10k-images-idx3-ubyte.gz: is both in data.files and in"),
    ],
)
def test_what_does_not_go_together_is_told(override: str, text: str) -> None:
    found = mistakes_of(GOOD, "algorithm.neural.partitions=2", override)
    assert any(text in mistake for mistake in found), found


def test_labels_that_are_missing_are_told(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    [found] = mistakes_of(GOOD)
    assert "data.test_files: " in found
    assert "t10k-labels-idx1-ubyte.gz: cannot be read" in found
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    [found] = mistakes_of(GOOD)
    assert "data.files: " in found


def test_layers_that_fit_must_learn_something(folder: Path) -> None:
    for name in ("red", "green", "blue"):
        (folder / "colours" / name).mkdir(parents=True)
        Image.new("RGB", (1, 1), name).save(folder / "colours" / name / "one.png")
    data = 'data={format="folders", files=["colours"], images={channels=3, height=1, width=1}}'
    [found] = mistakes_of(GOOD, data, 'algorithm.neural.layers=[{layer="relu"}]')
    assert "algorithm.neural.layers: has no layer that can learn: convolution or connected" in found


def test_a_linear_model_still_needs_its_table() -> None:
    found = mistakes_of('[data]\nformat = "libsvm"\nfiles = ["x.toml"]\n[algorithm]\nname = "linear"\n')
    assert any("algorithm.table: is missing" in mistake for mistake in found)
    assert any("tables: is missing" in mistake for mistake in found)
