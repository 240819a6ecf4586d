"""What happens to activations between the matrix products of a neural network, and to their gradients on the way back.

Arrays are flat where every element is on its own, else (channels or classes, …, n) with n images side by side.
"""

import numpy as np
from numba import njit

from mpips.kernels.hashing import mix64

_SMALLEST = 1e-30
_OF_2_TO_32 = 2.0**32


@njit(nogil=True, cache=True)
def rectify(values):
    """max(value, 0), in place."""
    for i in range(values.size):
        values[i] = max(values[i], values.dtype.type(0))


@njit(nogil=True, cache=True)
def rectify_back(values, errors):
    """Where the rectified value is 0 so becomes the error, in place."""
    for i in range(errors.size):
        errors[i] = errors[i] if values[i] > 0 else errors.dtype.type(0)


@njit(nogil=True, cache=True)
def drop(values, share, seed, first, apart, kept):
    """Set each value to 0 with probability `share`, scale the others by 1 / (1 − share), in place; `kept` (uint8) says
    which are left. Values and `kept` (channels, m).

    The same seed drops the same, by a value's place in the whole: the first is at `first`, channels are so far `apart`.

    Source: Srivastava et al. 2014, with the scaling at training.
    """
    scale, least = values.dtype.type(1.0 / (1.0 - share)), np.uint64(share * _OF_2_TO_32)
    start = mix64(np.uint64(seed))
    for channel in range(values.shape[0]):
        row, left = values[channel], kept[channel]
        begin = start + np.uint64(first + channel * apart)
        for i in range(row.size):
            keep = (mix64(begin + np.uint64(i)) >> np.uint64(32)) >= least
            left[i] = keep
            row[i] = row[i] * scale if keep else values.dtype.type(0)


@njit(nogil=True, cache=True)
def drop_back(errors, share, kept):
    """The same for the errors of the values."""
    scale = errors.dtype.type(1.0 / (1.0 - share))
    for i in range(errors.size):
        errors[i] = errors[i] * scale if kept[i] else errors.dtype.type(0)


@njit(nogil=True, cache=True)
def softmax(scores, labels, errors):
    """The cross-entropy of n images in sum, by `labels` (n,); `errors` gets its gradient by `scores` (classes, n)."""
    classes, n = scores.shape
    loss = 0.0
    for image in range(n):
        largest = scores[0, image]
        for k in range(1, classes):
            largest = max(largest, scores[k, image])
        total = 0.0
        for k in range(classes):
            total += np.exp(np.float64(scores[k, image] - largest))
        for k in range(classes):
            errors[k, image] = np.exp(np.float64(scores[k, image] - largest)) / total
        label = labels[image]
        loss += np.log(total) - np.float64(scores[label, image] - largest)
        errors[label, image] -= errors.dtype.type(1)
    return loss


@njit(nogil=True, cache=True)
def normalise(values, size, alpha, beta, bias, squares, out):
    """Response normalisation over `size` neighbouring channels: value / (bias + alpha/size · Σ v²)^beta.

    `values` and `out` (channels, m); `squares` (channels, m) keeps the denominators' bases for `normalise_back`.

    Source: Krizhevsky, Sutskever and Hinton 2012, section 3.3, alpha divided by the size as usual since.
    """
    channels, m = values.shape
    half = size // 2
    for channel in range(channels):
        base, row = squares[channel], values[channel]
        base[:] = bias
        for other in range(max(0, channel - half), min(channels, channel - half + size)):
            near = values[other]
            for i in range(m):
                base[i] += values.dtype.type(alpha / size) * near[i] * near[i]
        for i in range(m):
            out[channel, i] = row[i] * base[i] ** values.dtype.type(-beta)


@njit(nogil=True, cache=True)
def normalise_back(values, size, alpha, beta, squares, out, errors, back):
    """The gradient by `values` into `back`, from that by what came out, `errors`, both (channels, m); whatever is in
    `out` is written over.
    """
    channels, m = values.shape
    half = size // 2
    for channel in range(channels):
        for i in range(m):
            out[channel, i] = errors[channel, i] * squares[channel, i] ** values.dtype.type(-beta)
    for channel in range(channels):
        for i in range(m):
            back[channel, i] = out[channel, i]
        for other in range(max(0, channel - (size - 1 - half)), min(channels, channel + half + 1)):
            for i in range(m):
                share = out[other, i] * values[other, i] / squares[other, i]
                back[channel, i] -= values.dtype.type(2.0 * alpha * beta / size) * values[channel, i] * share


@njit(nogil=True, cache=True)
def stack(images, out):
    """Bytes of images (n, channels, height, width) as numbers from 0 to 1, side by side: (channels·height·width, n)."""
    n, scale = images.shape[0], out.dtype.type(1.0 / 255.0)
    flat = images.reshape(n, -1)
    for i in range(flat.shape[1]):
        for image in range(n):
            out[i, image] = flat[image, i] * scale
