"""A picture of the test images that a network takes for another class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mpips.cli.pictures import STYLE, plain

if TYPE_CHECKING:
    from mpips.algorithms.neural.trained import Wrong

ACROSS = 10
MOST = 100  # images
SIDE = 0.72  # inches
LONGEST = 9  # letters of a name that have room


def figure(name: str, wrong: "Wrong", classes: Sequence[str], ink: bool) -> Figure:
    """Draw them, class by class, each with what it is and what it is taken for; 100 of all classes if there are more.

    Parameters
    ----------
    ink : whether grey images are bright where they are to be drawn dark.
    """
    order = np.lexsort((wrong.taken_for, wrong.labels))
    if len(order) > MOST:
        order = order[np.linspace(0, len(order) - 1, MOST).astype(int)]
    names = [plain(each if len(each) <= LONGEST else f"{each[: LONGEST - 1]}…") for each in classes]
    between = "\n→ " if max(map(len, names)) > 2 else " → "
    rows = max(1, -(-len(order) // ACROSS))
    with rc_context(STYLE):
        picture = Figure((ACROSS * SIDE, (rows + 0.5) * (SIDE + 0.2)), layout="constrained")
        cells = picture.subplots(rows, ACROSS, squeeze=False).reshape(-1)
        for axes in cells:
            axes.set_axis_off()
        for axes, index in zip(cells, order, strict=False):
            pixels = wrong.images[index].transpose(1, 2, 0)
            grey = pixels.shape[2] == 1
            axes.imshow(pixels[..., 0] if grey else pixels, cmap="gray_r" if ink else "gray", vmin=0, vmax=255)
            axes.set_title(f"{names[wrong.labels[index]]}{between}{names[wrong.taken_for[index]]}", loc="center")
        shown = f", {MOST} of them are shown" if len(wrong.labels) > MOST else ""
        picture.suptitle(
            f"{plain(name)}: {len(wrong.labels):,} of {wrong.tested:,} test images are taken for another class{shown}",
            x=0.01, ha="left", fontsize=9,
        )  # fmt: skip
    return picture
