import numpy as np
import pytest
from scipy.ndimage import affine_transform

from mpips.dataserver.images import taps_of
from mpips.kernels.distort import distort

PLAIN = {"shift": 0.0, "turn": 0.0, "scale": 0.0, "mirror": False, "bend": 0.0}


def distorted(images, variants=(1,), seed=3, smooth=2.0, **how):
    """Every image in every variant: (variants, images, channels, height, width)."""
    out = np.empty((len(variants), *images.shape), np.uint8)
    for of_variant, variant in zip(out, variants, strict=True):
        chosen = np.arange(len(images))
        distort(
            images, chosen, np.full(len(images), variant), seed, *(PLAIN | how).values(), taps_of(smooth), of_variant
        )
    return out


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (5, 3, 11, 8)).astype(np.uint8)


def test_without_distortion_an_image_is_what_it_was(images):
    assert (distorted(images)[0] == images).all()


def test_the_same_seed_gives_the_same_and_another_variant_or_seed_another(images):
    how = {"shift": 2.0, "turn": 0.3, "scale": 0.2, "mirror": True, "bend": 1.0}
    first, again, other = distorted(images, (1, 1, 2), **how)
    assert (first == again).all()
    assert all((first[i] != other[i]).any() for i in range(len(images)))
    assert (distorted(images, seed=4, **how)[0] != first).any()
    alone = np.empty((1, *images.shape[1:]), np.uint8)
    distort(images, np.array([3]), np.array([1]), 3, *how.values(), taps_of(2.0), alone)
    assert (alone[0] == first[3]).all()  # whatever is made beside it


def test_reflection_is_exact_and_of_about_half(rng):
    images = rng.integers(0, 256, (200, 1, 6, 6)).astype(np.uint8)
    found = distorted(images, mirror=True)[0]
    mirrored = [(a == b[..., ::-1]).all() for a, b in zip(found, images, strict=True)]
    plain = [(a == b).all() for a, b in zip(found, images, strict=True)]
    assert all(a or b for a, b in zip(mirrored, plain, strict=True))
    assert 60 < sum(mirrored) < 140


def centre(image):
    """Where the brightness of an image (height, width) is."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(y * image).sum(), (x * image).sum()]) / image.sum()


def test_shifts_are_even_up_to_the_limit():
    image = np.zeros((1, 1, 21, 21), np.uint8)
    image[0, 0, 9:12, 9:12] = 200
    moved = np.array([centre(each[0, 0].astype(float)) - 10 for each in distorted(image, range(300), shift=3.0)])
    assert np.abs(moved).max() < 3.1
    assert np.abs(moved.mean(axis=0)).max() < 0.5
    assert np.allclose(moved.std(axis=0), 3 / np.sqrt(3), atol=0.3)


@pytest.mark.parametrize("how", [{"turn": 0.5}, {"scale": 0.3}])
def test_turning_and_scaling_are_about_the_middle(how):
    image = np.zeros((1, 1, 31, 31), np.uint8)
    image[0, 0, 4:7, 14:17] = 200
    image[0, 0, 24:27, 14:17] = 200
    for each in distorted(image, range(20), **how):
        found = each[0, 0].astype(float)
        assert np.allclose(centre(found), 15, atol=0.2)
        y, x = np.mgrid[:15, :31]
        arm = np.array([(y * found[:15]).sum(), (x * found[:15]).sum()]) / found[:15].sum() - 15
        angle, length = np.arctan2(arm[1], -arm[0]), np.hypot(*arm)
        assert abs(angle) <= how.get("turn", 0.0) + 0.03
        assert abs(length / 10 - 1) <= how.get("scale", 0.0) + 0.05


def test_it_interpolates_as_scipy_does(rng):
    """Of one drawn map the rotation is found back, and applied by scipy."""
    smooth = np.zeros((1, 1, 25, 25), np.uint8)
    smooth[0, 0] = 255 * np.exp(-((np.mgrid[:25, :25] - 12.0) ** 2 / np.array([60.0, 20.0])[:, None, None]).sum(axis=0))
    found = distorted(smooth, turn=0.8)[0, 0, 0].astype(float)

    def turned(angle):
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array([12.0, 12.0])
        return affine_transform(smooth[0, 0].astype(float), matrix, middle - matrix @ middle, order=1, mode="nearest")

    best = min(np.abs(turned(angle) - found).mean() for angle in np.linspace(-0.8, 0.8, 321))
    assert best < 0.6  # of 255, rounded


def test_bending_moves_points_by_its_root_mean_square_and_near_ones_alike():
    side = 64
    ramp = np.zeros((1, 1, side, side), np.uint8)
    ramp[0, 0] = 2 * np.arange(side)[:, None] + 40  # brightness tells where a point has come from
    moved = (distorted(ramp, range(30), bend=1.5, smooth=3.0)[:, 0, 0].astype(float) - ramp[0, 0]) / 2
    inner = moved[:, 12:-12, 12:-12]
    assert np.isclose(np.sqrt((inner**2).mean()), 1.5, rtol=0.1)
    near, far = inner[:, :, 1:] - inner[:, :, :-1], inner[:, :, 15:] - inner[:, :, :-15]
    assert np.sqrt((near**2).mean()) < 0.6
    assert np.sqrt((far**2).mean()) > 1.5
