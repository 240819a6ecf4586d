import msgspec
import numpy as np
import pytest
from PIL import Image

from mpips.dataserver import folders, idx
from mpips.dataserver.errors import DataError
from mpips.dataserver.image_batch import ImageBatch, is_of_images
from mpips.dataserver.image_files import kind_of, load
from mpips.dataserver.images import ImagePart, Variants
from mpips.dataserver.spec import DataSpec, ImageSpec, TestSplit
from tests.images import SIDE, shapes, write_idx, write_shapes

TRAIN, TEST = "train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"


def spec_of(**settings):
    return DataSpec(**{"format": "idx", "files": (TRAIN,), "test_files": (TEST,), "batch": 32, **settings})


def read(part, batch, epoch=1):
    blob = np.full(part.size(batch) // 8 * 8, 0xEE, np.uint8)
    part.read(batch, epoch, blob)
    assert is_of_images(blob)
    return ImageBatch.unpack(blob)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
@pytest.mark.parametrize("shape", [(0,), (7,), (3, 4, 5), (2, 3, 4, 5)])
def test_an_idx_file_is_read_as_it_was_written(tmp_path, name, shape, rng):
    content = rng.integers(0, 256, shape).astype(np.uint8)
    write_idx(tmp_path / name, content)
    assert idx.shape(tmp_path / name) == shape
    assert (idx.read(tmp_path / name) == content).all()


@pytest.mark.parametrize("cut", [0, 2, 3, 9, 30])
@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
def test_a_file_that_is_cut_short_is_named(tmp_path, name, cut):
    write_idx(tmp_path / name, np.zeros((3, 4, 5), np.uint8))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=name):
        idx.read(path)


def test_what_is_not_idx_is_said(tmp_path):
    (tmp_path / "x").write_bytes(b"label,pixel\n1,2\n")
    with pytest.raises(DataError, match="x: is not IDX of unsigned bytes"):
        idx.shape(tmp_path / "x")
    with pytest.raises(DataError, match="No such file"):
        idx.read(tmp_path / "y")


def test_labels_lie_beside_their_images(tmp_path):
    assert idx.labels_of(tmp_path / "images-of/train-images-idx3-ubyte.gz").name == "train-labels-idx1-ubyte.gz"
    write_shapes(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: cannot be read"):
        kind_of(spec_of(), tmp_path)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.full(90, 3, np.uint8), "the label 3 is none of the training images'"),
        (np.zeros(80, np.uint8), "80 labels for 90 images"),
        (np.zeros((90, 2), np.uint8), "180 labels for 90 images"),
    ],
)
def test_labels_must_be_as_many_as_images_and_known_from_training(tmp_path, labels, said):
    write_shapes(tmp_path)
    kind = kind_of(spec_of(), tmp_path)
    assert kind == (1, SIDE, SIDE, ["0", "1", "2"])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels)
    with pytest.raises(DataError, match=said):
        kind_of(spec_of(), tmp_path)
    with pytest.raises(DataError, match=said):
        load(spec_of(), tmp_path, kind, test=True)


def test_a_file_whose_labels_would_be_itself_is_refused(tmp_path):
    write_shapes(tmp_path)
    (tmp_path / TRAIN).rename(tmp_path / "digits.gz")
    with pytest.raises(DataError, match=r'digits\.gz: there must be "images" or "idx3" in its name'):
        kind_of(spec_of(files=("digits.gz",)), tmp_path)


def test_images_of_one_class_are_nothing_to_learn(tmp_path):
    write_shapes(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(300, np.uint8))
    with pytest.raises(DataError, match="all images are of one class"):
        kind_of(spec_of(test_files=()), tmp_path)


def test_nothing_is_trained_and_tested_on(tmp_path, pictures):
    write_shapes(tmp_path)
    with pytest.raises(DataError, match=rf"{TEST}: is both in data.files and in data.test_files"):
        kind_of(spec_of(files=("*-images-*",)), tmp_path)
    with pytest.raises(DataError, match=r"pictures: is both in"):
        kind_of(folder_spec(test_files=("pictures/../pictures",)), pictures)


def test_images_of_other_sizes_do_not_belong_together(tmp_path):
    write_shapes(tmp_path)
    write_idx(tmp_path / TEST, np.zeros((90, SIDE, SIDE + 1), np.uint8))
    with pytest.raises(DataError, match="not as large"):
        kind_of(spec_of(), tmp_path)


def test_test_images_may_be_some_of_the_training_files(tmp_path):
    write_shapes(tmp_path)
    spec = spec_of(test_files=(), test=TestSplit(every=5, offset=4))
    kind = kind_of(spec, tmp_path)
    train, test = (load(spec, tmp_path, kind, of_test) for of_test in (False, True))
    images, labels = shapes(300, 0)
    assert (test.images[:, 0] == images[4::5]).all()
    assert (test.labels == labels[4::5]).all()
    assert len(train.labels) == 240
    assert load(spec_of(test_files=()), tmp_path, kind, test=True).labels.size == 0


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path, rng):
    """Three images of two classes, in colours and in grey."""
    for name, mode, shape in (
        ("cats/a.png", "RGB", (6, 8, 3)),
        ("cats/deep/b.PNG", "L", (6, 8)),
        ("dogs/c.bmp", "RGB", (12, 16, 3)),
    ):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8), mode).save(path)
    (tmp_path / "pictures" / "cats" / "notes.txt").write_text("no image")
    return tmp_path


def folder_spec(**settings):
    images = ImageSpec(channels=3, height=6, width=8)
    return DataSpec(**{"format": "folders", "files": ("pictures",), "images": images, **settings})


def test_folders_are_classes_and_images_are_brought_to_one_size(pictures):
    spec = folder_spec()
    kind = kind_of(spec, pictures)
    assert kind == (3, 6, 8, ["cats", "dogs"])
    loaded = load(spec, pictures, kind, test=False, threads=2)
    assert loaded.labels.tolist() == [0, 0, 1]
    assert loaded.images.shape == (3, 3, 6, 8)
    with Image.open(pictures / "pictures/cats/a.png") as image:
        assert (loaded.images[0] == np.asarray(image).transpose(2, 0, 1)).all()
    grey = folders.decode(pictures / "pictures/cats/deep/b.PNG", 1, 6, 8)
    assert (loaded.images[1] == grey).all()


def test_a_damaged_image_is_named_or_left_out(pictures):
    (pictures / "pictures/dogs/bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    kind = kind_of(folder_spec(), pictures)
    with pytest.raises(DataError, match=r"dogs/bad\.png"):
        load(folder_spec(), pictures, kind, test=False)
    spec = folder_spec(malformed="skip")
    assert load(spec, pictures, kind, test=False).skipped == 1
    part = ImagePart(spec, pictures, 0, 1, 1)
    assert (part.train_rows, part.skipped) == (3, 1)
    parts = [ImagePart(folder_spec(malformed="skip", test=TestSplit(every=2)), pictures, n, 2, 1) for n in range(2)]
    assert sum(part.train_rows + part.test_rows for part in parts) == 3
    assert sum(part.skipped for part in parts) == 1


def test_what_is_hidden_is_no_image(pictures):
    for name in ("cats/._a.png", "cats/.ipynb_checkpoints/a.png", ".cache/b.png", "dogs/folder.png/x.txt"):
        path = pictures / "pictures" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no image")
    kind = kind_of(folder_spec(), pictures)
    assert load(folder_spec(), pictures, kind, test=False).labels.tolist() == [0, 0, 1]


def test_classes_are_those_of_all_training_folders(pictures):
    (pictures / "pictures2" / "birds").mkdir(parents=True)
    Image.new("RGB", (8, 6), "red").save(pictures / "pictures2/birds/r.png")
    for spec in (folder_spec(files=("pictures", "pictures2")), folder_spec(files=("pict*",))):
        kind = kind_of(spec, pictures)
        assert kind.classes == ["birds", "cats", "dogs"]
        assert load(spec, pictures, kind, test=False).labels.tolist() == [1, 1, 2, 0]


def test_an_image_is_turned_as_it_is_to_be_seen(tmp_path):
    upright = np.zeros((8, 6), np.uint8)
    upright[0] = 255
    lying, how = Image.fromarray(np.rot90(upright)), Image.Exif()
    how[0x0112] = 6  # to be turned by 90 degrees, clockwise
    lying.save(tmp_path / "x.png", exif=how)
    assert (folders.decode(tmp_path / "x.png", 1, 8, 6)[0] == upright).all()


def test_what_is_transparent_is_white(tmp_path):
    ink = np.zeros((6, 8, 4), np.uint8)
    ink[2, :, 3] = 255
    Image.fromarray(ink, "RGBA").save(tmp_path / "colour.png")
    Image.fromarray(ink[:, :, 2:], "LA").save(tmp_path / "grey.png")
    Image.fromarray(ink, "RGBA").quantize(4).save(tmp_path / "palette.png")
    due = np.full((6, 8), 255)
    due[2] = 0
    for name in ("colour", "grey", "palette"):
        assert (folders.decode(tmp_path / f"{name}.png", 1, 6, 8)[0] == due).all(), name
        assert (folders.decode(tmp_path / f"{name}.png", 3, 6, 8) == due).all(), name


def test_of_16_bits_the_upper_8_count(tmp_path):
    ramp = np.arange(48, dtype=np.uint16).reshape(6, 8) << 10
    Image.fromarray(ramp).save(tmp_path / "x.png")
    Image.fromarray(ramp).save(tmp_path / "x.tiff")
    (tmp_path / "x.pgm").write_bytes(b"P5 8 6 65535\n" + ramp.astype(">u2").tobytes())
    for name in ("x.png", "x.tiff", "x.pgm"):
        assert (folders.decode(tmp_path / name, 1, 6, 8)[0] == ramp >> 8).all(), name
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "y.tiff")
    with pytest.raises(DataError, match=r"y\.tiff: can't be read as an image: its pixels are not of 8 or 16 bits"):
        folders.decode(tmp_path / "y.tiff", 1, 6, 8)


def test_folders_that_are_no_classes_are_said(pictures):
    (pictures / "tests" / "birds").mkdir(parents=True)
    with pytest.raises(DataError, match='the class "birds" is not among those of the training images'):
        kind_of(folder_spec(test_files=("tests",)), pictures)
    (pictures / "empty").mkdir()
    with pytest.raises(DataError, match="has no folders"):
        kind_of(folder_spec(files=("empty",)), pictures)


# --- parts and variants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 3])
def test_every_image_is_once_in_every_epoch_and_in_another_order(tmp_path, parts):
    write_shapes(tmp_path)
    images, labels = shapes(300, 0)
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    seen = {1: [], 2: []}
    for number in range(parts):
        part = ImagePart(spec_of(), tmp_path, number, parts, 2)
        for epoch, found in seen.items():
            for batch in range(part.train):
                each = read(part, batch, epoch)
                assert len(each) == 32 or batch == part.train - 1
                assert all(
                    known[image.tobytes()] == label for image, label in zip(each.images, each.labels, strict=True)
                )
                found += [image.tobytes() for image in each.images]
        assert (read(part, 0, 1).images == read(part, 0, 1).images).all()
        assert part.test_rows == 90 // parts
    assert sorted(seen[1]) == sorted(seen[2]) == sorted(known)
    assert seen[1] != seen[2]


def test_test_images_are_as_they_are_in_every_epoch(tmp_path):
    write_shapes(tmp_path)
    part = ImagePart(spec_of(images=ImageSpec(turn=30.0, bend=1.0)), tmp_path, 0, 1, 1)
    images, labels = shapes(90, 1)
    found = [read(part, part.train + batch, epoch=7) for batch in range(part.test)]
    assert (np.concatenate([each.images[:, 0] for each in found]) == images).all()
    assert (np.concatenate([each.labels for each in found]) == labels).all()
    assert (read(part, 0, 1).images != read(part, 0, 2).images).any()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("memory", [1, 40 * SIDE * SIDE, 1 << 20])
def test_variants_are_the_same_whether_they_are_kept_or_made_again(threads, memory, rng):
    images, _ = shapes(30, 0)
    settings = ImageSpec(shift=1.0, turn=20.0, bend=1.0, variants=2, memory=memory)
    kept, made = Variants(settings, images[:, None], 5, threads), None
    fresh = Variants(msgspec.structs.replace(settings, memory=1), images[:, None], 5, 1)
    for epoch in range(1, 7):
        chosen = rng.permutation(30)[:17]
        one, other = (np.empty((17, 1, SIDE, SIDE), np.uint8) for _ in range(2))
        kept.fill(chosen, epoch, one)
        fresh.fill(chosen, epoch, other)
        assert (one == other).all()
        made = one
    assert kept._kept.nbytes <= memory
    assert made is not None


def test_as_many_variants_as_were_asked_for_are_seen():
    images, _ = shapes(3, 0)
    variants = Variants(ImageSpec(turn=40.0, variants=3), images[:, None], 5, 1)
    seen = set()
    for epoch in range(12):
        out = np.empty((1, 1, SIDE, SIDE), np.uint8)
        variants.fill(np.array([1]), epoch, out)
        seen.add(out.tobytes())
    assert len(seen) == 3


def test_a_blob_of_images_is_told_from_others_and_from_a_short_one():
    blob = np.zeros(ImageBatch.nbytes_of(3, (1, 5, 5)), np.uint8)
    batch = ImageBatch.lay(blob, 3, (1, 5, 5))
    batch.images[:], batch.labels[:] = 9, [1, 2, 3]
    again = ImageBatch.unpack(blob)
    assert (len(again), again.labels.tolist(), again.images.sum()) == (3, [1, 2, 3], 9 * 75)
    with pytest.raises(ValueError, match="cut short"):
        ImageBatch.unpack(blob[:-8].copy())
    with pytest.raises(ValueError, match="not a batch of images"):
        ImageBatch.unpack(np.zeros(64, np.uint8))
