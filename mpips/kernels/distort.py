"""Images moved, turned, scaled, mirrored and bent at random, so that no two epochs show the same.

What is done to an image follows from a seed, its number and the variant's: whoever makes the variant makes the same.
"""

import numpy as np
from numba import njit

from mpips.kernels.hashing import mix64

_OF_2_TO_53 = 1.0 / (1 << 53)


@njit(inline="always")
def _uniform(state, i):
    """The i-th of a stream of numbers in [−1, 1)."""
    return np.float64(mix64(state + np.uint64(i)) >> np.uint64(11)) * _OF_2_TO_53 * 2.0 - 1.0


@njit(nogil=True, cache=True)
def _blur(field, taps, between):
    """Blur a field (height, width) by a symmetric filter, along both axes; outside of it there is 0."""
    height, width = field.shape
    reach = taps.size // 2
    for y in range(height):
        between[y, :] = 0
        for k in range(max(-reach, -y), min(reach, height - 1 - y) + 1):
            tap, row = taps[k + reach], field[y + k]
            for x in range(width):
                between[y, x] += tap * row[x]
    for y in range(height):
        field[y, :] = 0
        for k in range(-reach, reach + 1):
            tap = taps[k + reach]
            for x in range(max(0, -k), min(width, width - k)):
                field[y, x] += tap * between[y, x + k]


@njit(nogil=True, cache=True)
def distort(images, chosen, variants, seed, shift, turn, scale, mirror, bend, taps, out):
    """Variants of images: out[i] (uint8) is images[chosen[i]] in the variant variants[i].

    Parameters
    ----------
    images : (m, channels, height, width) uint8.
    chosen, variants : (n,) int64.
    seed : of all that is random.
    shift : the image moves by up to so many pixels, along each axis.
    turn : it turns by up to so many radians.
    scale : it grows or shrinks by up to this share.
    mirror : whether half of them are reflected, left to right.
    bend : pixels by which points are moved besides, root mean square, near ones alike; 0: none.
    taps : (2·r + 1,) float32, the filter that makes near points alike, its squares adding up to 1.
    out : (n, channels, height, width) uint8.

    A pixel of the result is interpolated between the four nearest of the image; outside of it those of its edge count.

    Source: Simard, Steinkraus and Platt 2003, for the bending: random displacements, blurred.
    """
    channels, height, width = images.shape[1:]
    middle_y, middle_x = (height - 1) / 2.0, (width - 1) / 2.0
    down = np.zeros((height, width), np.float32)
    right = np.zeros((height, width), np.float32)
    between = np.empty((height, width), np.float32)
    strength = np.float32(bend * np.sqrt(3.0))  # of numbers that are even in [−1, 1)
    for i in range(chosen.size):
        image = images[chosen[i]]
        state = mix64(mix64(mix64(np.uint64(seed)) + np.uint64(chosen[i])) + np.uint64(variants[i]))
        angle = turn * _uniform(state, 0)
        grow = 1.0 / (1.0 + scale * _uniform(state, 1))
        move_y, move_x = shift * _uniform(state, 2), shift * _uniform(state, 3)
        cos, sin = np.cos(angle) * grow, np.sin(angle) * grow
        side = -1.0 if mirror and _uniform(state, 4) < 0.0 else 1.0
        if bend > 0.0:
            for y in range(height):
                for x in range(width):
                    at = 8 + 2 * (y * width + x)
                    down[y, x] = strength * np.float32(_uniform(state, at))
                    right[y, x] = strength * np.float32(_uniform(state, at + 1))
            _blur(down, taps, between)
            _blur(right, taps, between)
        for y in range(height):
            for x in range(width):
                far_y, far_x = y - middle_y - move_y, (x - middle_x - move_x) * side
                from_y = middle_y + cos * far_y - sin * far_x + down[y, x]
                from_x = middle_x + sin * far_y + cos * far_x + right[y, x]
                from_y = min(max(from_y, 0.0), height - 1.0)
                from_x = min(max(from_x, 0.0), width - 1.0)
                top, left = min(int(from_y), max(height - 2, 0)), min(int(from_x), max(width - 2, 0))
                low, last = min(top + 1, height - 1), min(left + 1, width - 1)
                part_y, part_x = from_y - top, from_x - left
                for channel in range(channels):
                    plane = image[channel]
                    above = plane[top, left] * (1.0 - part_x) + plane[top, last] * part_x
                    below = plane[low, left] * (1.0 - part_x) + plane[low, last] * part_x
                    out[i, channel, y, x] = np.uint8(above * (1.0 - part_y) + below * part_y + 0.5)
