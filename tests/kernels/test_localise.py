import numpy as np
import pytest

from mpips.kernels.localise import localise, sort_order


@pytest.mark.parametrize("bits", [0, 1, 7, 12, 22, 33, 63, 64])
def test_localise_is_unique_with_inverse(bits):
    keys = np.random.default_rng(bits).integers(0, 2**bits, 5_000, np.uint64)
    indices = np.empty(keys.size, np.int32)
    unique = localise(keys, np.empty(8192, np.int32), indices)
    expected, inverse = np.unique(keys, return_inverse=True)
    np.testing.assert_array_equal(unique, expected)
    np.testing.assert_array_equal(indices, inverse)


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_sort_order_is_a_stable_argsort(size):
    keys = np.random.default_rng(size).integers(0, 50, size).astype(np.uint64) << np.uint64(58)
    np.testing.assert_array_equal(sort_order(keys), np.argsort(keys, kind="stable"))
