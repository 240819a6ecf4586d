import numpy as np
import pytest
from scipy.signal import correlate

from mpips.kernels.convolution import add_columns, columns, pool, unpool


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 1, 0), (3, 1, 2), (5, 2, 1), (1, 1, 0), (2, 3, 0), (4, 2, 3)]
)
@pytest.mark.parametrize("block", [1, 3, 100])
def test_columns_times_filters_are_the_correlation(size, stride, padding, block, rng):
    channels, height, width, n, filters = 2, 9, 7, 3, 4
    images = rng.normal(size=(channels, height, width, n))
    weights = rng.normal(size=(filters, channels, size, size))
    rows, across = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
    out = np.full((filters, rows, across, n), np.nan)
    for top in range(0, rows, block):
        some = min(block, rows - top)
        matrix = np.full((channels * size**2, some * across * n), np.nan)
        columns(images, top, some, across, size, stride, padding, padding, matrix)
        out[:, top : top + some] = (weights.reshape(filters, -1) @ matrix).reshape(filters, some, across, n)
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for k in range(filters):
        for i in range(n):
            expected = correlate(padded[..., i], weights[k], "valid")[0][::stride, ::stride]
            assert np.allclose(out[k, ..., i], expected)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 0), (3, 1, 2), (5, 2, 1), (2, 3, 0), (4, 2, 3)])
def test_adding_columns_is_the_transpose_of_making_them(size, stride, padding, rng):
    images = rng.normal(size=(2, 9, 7, 3))
    rows, across = ((side + 2 * padding - size) // stride + 1 for side in (9, 7))
    matrix = np.empty((2 * size**2, rows * across * 3))
    columns(images, 0, rows, across, size, stride, padding, padding, matrix)
    other, back = rng.normal(size=matrix.shape), np.zeros_like(images)
    add_columns(other, 0, rows, across, size, stride, padding, padding, back)
    assert np.isclose((matrix * other).sum(), (images * back).sum())


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (2, 3), (3, 3), (1, 1)])
def test_pooling_takes_the_largest_and_sends_the_error_there(size, stride, rng):
    images = rng.permutation(2 * 8 * 9 * 4).reshape(2, 8, 9, 4).astype(np.float64)
    rows, across = (8 - size) // stride + 1, (9 - size) // stride + 1
    out, place = np.empty((2, rows, across, 4)), np.empty((2, rows, across, 4), np.uint8)
    pool(images, size, stride, out, place)
    errors, expected = rng.normal(size=out.shape), np.zeros_like(images)
    for c, i, j, n in np.ndindex(out.shape):
        window = images[c, i * stride : i * stride + size, j * stride : j * stride + size, n]
        assert out[c, i, j, n] == window.max()
        y, x = np.unravel_index(window.argmax(), window.shape)
        expected[c, i * stride + y, j * stride + x, n] += errors[c, i, j, n]
    back = np.full_like(images, np.nan)
    unpool(errors, place, size, stride, back)
    assert np.allclose(back, expected)
