"""A picture of the test images that a network takes for another class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mpips.cli.pictures import STYLE

if TYPE_CHECKING:
    from mpips.algorithms.neural.trained import Wrong

ACROSS = 10
MOST = 100  # images
SIDE = 0.72  # inches


def figure(name: str, wrong: "Wrong", classes: Sequence[str]) -> Figure:
    """Draw them, class by class, each with what it is and what it is taken for; the first 100 if there are more."""
    order = np.lexsort((wrong.taken_for, wrong.labels))[:MOST]
    rows = max(1, -(-len(order) // ACROSS))
    with rc_context(STYLE):
        picture = Figure((ACROSS * SIDE, (rows + 0.5) * (SIDE + 0.2)), layout="constrained")
        cells = picture.subplots(rows, ACROSS, squeeze=False).reshape(-1)
        for axes in cells:
            axes.set_axis_off()
        for axes, index in zip(cells, order, strict=False):
            pixels = wrong.images[index].transpose(1, 2, 0)
            axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray_r", vmin=0, vmax=255)
            axes.set_title(f"{classes[wrong.labels[index]]} → {classes[wrong.taken_for[index]]}", loc="center")
        shown = f", the first {MOST} of them" if len(wrong.labels) > MOST else ""
        picture.suptitle(
            f"{name}: {len(wrong.labels):,} of {wrong.tested:,} test images are taken for another class{shown}",
            x=0.01, ha="left", fontsize=9,
        )  # fmt: skip
    return picture
