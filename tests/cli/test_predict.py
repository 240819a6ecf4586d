"""What a trained network says of images, and which test images it takes for another class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mpips.algorithms.neural.trained import NoNetwork, Trained, Wrong
from mpips.checkpoint import Generation, generations
from mpips.checkpoint.master import write_master
from mpips.checkpoint.write import ServerFile
from mpips.cli.app import app
from mpips.cli.pictures import save
from mpips.cli.wrong_pictures import figure
from mpips.table import TableSpec
from tests.algorithms.conftest import data
from tests.algorithms.test_neural import plan_of, result_of, run
from tests.images import shapes

__all__ = ["data"]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> tuple[Path, list[list[int]]]:
    """A run folder, and how often its last evaluation took which class for which."""
    folder = tmp_path_factory.mktemp("run")
    _, plan = plan_of(data, passes=5, run=folder, saves=True)
    confusion = result_of(run(plan))["metrics"]["confusion"]
    return folder, confusion


def network_of(folder: Path) -> Trained:
    with Generation(generations(folder)[0]) as generation:
        return Trained(generation)


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_a_generation_has_all_that_it_takes_to_use_it(trained, data) -> None:
    folder, confusion = trained
    network = network_of(folder)
    assert network.classes == ["bar", "pole", "square"]
    images, labels = shapes(90, 1)
    chances = network.probabilities(images[:, None])
    assert np.allclose(chances.sum(axis=1), 1)
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (labels, chances.argmax(axis=1)), 1)
    assert counts.tolist() == confusion
    wrong = network.wrong()
    assert wrong.tested == 90
    assert len(wrong.labels) == 90 - np.trace(counts)
    assert (wrong.labels != wrong.taken_for).all()
    assert {image.tobytes() for image in wrong.images} <= {image.tobytes() for image in images}


def test_images_of_any_size_are_named_with_how_sure_it_is(trained, tmp_path) -> None:
    folder, _ = trained
    images, _ = shapes(90, 1)
    chances = network_of(folder).probabilities(images[:2, None])
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image).save(path)
    said = predict(folder, *paths, "--top", 2)
    assert said.exit_code == 0, said.output
    lines = [line.split() for line in said.stdout.splitlines()[-2:]]
    names = ["bar", "pole", "square"]
    for line, path, of_image in zip(lines, paths, chances, strict=True):
        first, second = np.argsort(-of_image)[:2]
        assert line == [str(path), names[first], f"{of_image[first]:.1%}", names[second], f"{of_image[second]:.1%}"]
    Image.fromarray(255 - images[0]).resize((60, 60), Image.Resampling.NEAREST).save(tmp_path / "inverted.png")
    inverted = predict(folder, tmp_path / "inverted.png", "--invert", "--top", 1)
    assert names[int(chances[0].argmax())] in inverted.stdout


def test_what_can_not_be_predicted_is_said(trained, tmp_path) -> None:
    folder, _ = trained
    (tmp_path / "x.png").write_text("no image")
    said = predict(folder, tmp_path / "x.png")
    assert "x.png: is no image that can be read" in str(said.exception)
    spec = TableSpec(name="w", rows=4)
    file = ServerFile(tmp_path, 1, 1)
    file.dense(spec, 0, np.zeros(4), np.zeros(0))
    file.close()
    write_master(tmp_path, 1, [1], [spec], "", {})
    with Generation(generations(tmp_path)[0]) as generation, pytest.raises(NoNetwork, match="has no network in it"):
        Trained(generation)


def test_a_plot_shows_the_images_that_are_taken_for_another_class(trained, tmp_path) -> None:
    folder, _ = trained
    said = CliRunner().invoke(app, ["plot", str(folder), "--out", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.png", "plot.svg", "wrong.png", "wrong.svg"]
    network = network_of(folder)
    wrong = network.wrong()
    picture = figure("run", wrong, network.classes, ink=True)
    titles = [axes.get_title() for axes in picture.axes if axes.get_title()]
    pairs = zip(wrong.labels, wrong.taken_for, strict=True)
    assert sorted(titles) == sorted(f"{network.classes[label]}\n→ {network.classes[other]}" for label, other in pairs)
    none = Wrong(wrong.images[:0], wrong.labels[:0], wrong.taken_for[:0], 90)
    save(figure("run", none, network.classes, ink=True), tmp_path, "none")


def test_of_many_wrong_images_some_of_all_classes_are_drawn_with_names_that_have_room(tmp_path, rng) -> None:
    labels = np.repeat(np.arange(3), 100)
    wrong = Wrong(rng.integers(0, 256, (300, 1, 6, 6)).astype(np.uint8), labels, (labels + 1) % 3, 1000)
    picture = figure("US$ and C$", wrong, ["golden_retriever", "$", "cat"], ink=False)
    titles = {axes.get_title() for axes in picture.axes if axes.get_title()}
    assert titles == {"golden_r…\n→ \\$", "\\$\n→ cat", "cat\n→ golden_r…"}
    assert "100 of them are shown" in picture.get_suptitle()
    save(picture, tmp_path, "wrong")


def test_a_plot_goes_without_them_when_the_images_are_gone(trained, tmp_path, data) -> None:
    folder, _ = trained
    _, where = data
    labels = where / "t10k-labels-idx1-ubyte.gz"
    labels.rename(tmp_path / "away")
    try:
        said = CliRunner().invoke(app, ["plot", str(folder), "--out", str(tmp_path / "out")])
    finally:
        (tmp_path / "away").rename(labels)
    assert said.exit_code == 0
    assert "are not drawn" in said.stderr
    assert (tmp_path / "out" / "plot.png").exists()
    assert not (tmp_path / "out" / "wrong.png").exists()
