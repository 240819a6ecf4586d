"""Convolution as a matrix product: the image patches under a filter as columns of a matrix, and back.

Arrays of images have the shape (channels, height, width, n), n images side by side in memory (the layout of
Krizhevsky's cuda-convnet): what a filter's weight is multiplied with, for all images and a row of pixels, is then one
run of memory, so making columns is copying, and every loop over images is a vector operation.
"""

import numpy as np
from numba import njit


@njit(inline="always")
def _inside(size, out, offset, stride):
    """The first and one past the last of `out` positions whose pixel, offset + stride·i, is within `size`."""
    first = 0 if offset >= 0 else (-offset + stride - 1) // stride
    last = min(out, (size - 1 - offset) // stride + 1) if size > offset else 0
    return min(first, out), max(last, min(first, out))


@njit(nogil=True, cache=True)
def columns(images, top, rows, width, size, stride, up, padding, out):
    """Write the patches under `size`·`size` filters, at `rows` rows of positions from row `top` on and `width`
    positions in each, into `out` (channels·size·size, rows·width·n). Outside of the images, `up` rows above and
    `padding` pixels beside them, there is 0.
    """
    channels, height, across, n = images.shape
    pixels = images.reshape(-1)
    run = width * n
    at = 0
    for channel in range(channels):
        for down in range(size):
            for right in range(size):
                row = out[at]
                at += 1
                first, last = _inside(across, width, right - padding, stride)
                for i in range(rows):
                    y = (top + i) * stride + down - up
                    start = i * run
                    if y < 0 or y >= height:
                        row[start : start + run] = 0
                        continue
                    row[start : start + first * n] = 0
                    begin = ((channel * height + y) * across + first * stride + right - padding) * n
                    if stride == 1:
                        shift = begin - start - first * n
                        for j in range(start + first * n, start + last * n):
                            row[j] = pixels[j + shift]
                    else:
                        for position in range(first, last):
                            shift = begin + (position - first) * stride * n
                            for j in range(n):
                                row[start + position * n + j] = pixels[shift + j]
                    row[start + last * n : start + run] = 0


@njit(nogil=True, cache=True)
def add_columns(matrix, top, rows, width, size, stride, up, padding, images):
    """The transpose of `columns`: add every entry of `matrix` (channels·size·size, rows·width·n) to the pixel that it
    would be taken from.
    """
    channels, height, across, n = images.shape
    pixels = images.reshape(-1)
    run = width * n
    at = 0
    for channel in range(channels):
        for down in range(size):
            for right in range(size):
                row = matrix[at]
                at += 1
                first, last = _inside(across, width, right - padding, stride)
                for i in range(rows):
                    y = (top + i) * stride + down - up
                    if y < 0 or y >= height:
                        continue
                    start = i * run
                    begin = ((channel * height + y) * across + first * stride + right - padding) * n
                    if stride == 1:
                        shift = begin - start - first * n
                        for j in range(start + first * n, start + last * n):
                            pixels[j + shift] += row[j]
                    else:
                        for position in range(first, last):
                            shift = begin + (position - first) * stride * n
                            for j in range(n):
                                pixels[shift + j] += row[start + position * n + j]


@njit(nogil=True, cache=True)
def pool(images, size, stride, out, place):
    """The largest of every `size`·`size` window into `out` (channels, rows, width, n), and which of the window it is
    into `place` (uint8, the same shape).
    """
    channels, rows, width, n = out.shape
    for channel in range(channels):
        for i in range(rows):
            for j in range(width):
                best, where = out[channel, i, j], place[channel, i, j]
                first = images[channel, i * stride, j * stride]
                for k in range(n):
                    best[k], where[k] = first[k], 0
                for at in range(1, size * size):
                    other = images[channel, i * stride + at // size, j * stride + at % size]
                    for k in range(n):
                        larger = other[k] > best[k]
                        best[k] = other[k] if larger else best[k]
                        where[k] = np.uint8(at) if larger else where[k]


@njit(nogil=True, cache=True)
def unpool(errors, place, size, stride, images):
    """Put every error (channels, rows, width, n) where its window's largest was, into `images`; elsewhere 0.

    With stride = size every pixel is in one window at most, and written once.
    """
    channels, rows, width, n = errors.shape
    apart = stride >= size
    if not apart or stride > size or rows * stride < images.shape[1] or width * stride < images.shape[2]:
        images[:] = 0
    for channel in range(channels):
        for i in range(rows):
            for j in range(width):
                error, where = errors[channel, i, j], place[channel, i, j]
                for at in range(size * size):
                    pixel = images[channel, i * stride + at // size, j * stride + at % size]
                    if apart:
                        for k in range(n):
                            pixel[k] = error[k] if where[k] == at else error.dtype.type(0)
                    else:
                        for k in range(n):
                            pixel[k] += error[k] if where[k] == at else error.dtype.type(0)
