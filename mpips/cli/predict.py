"""`mpips predict`: what a trained network takes images for. Needs no MPI."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from mpips.checkpoint import Generation
from mpips.cli.inspect import master
from mpips.cli.screen import screen


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, or one generation's master file.", show_default=False)],
    images: Annotated[
        list[Path], typer.Argument(help="Image files of any size and format.", metavar="IMAGE", show_default=False)
    ],
    generation: Annotated[int | None, typer.Option(help="This generation instead of the newest.")] = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="Dark becomes bright: for ink on paper, where digits are bright on dark.")
    ] = False,
    top: Annotated[int, typer.Option(help="How many classes to name for each image.", min=1)] = 3,
) -> None:
    """Say which class a trained network takes images for, and how sure it is."""
    from mpips.algorithms.neural.trained import Trained  # whose kernels take a second to load
    from mpips.dataserver.folders import decode

    with Generation(master(run, generation)) as found:
        network = Trained(found)
    pixels = np.stack([decode(path, *network.image) for path in images])
    chances = network.probabilities(255 - pixels if invert else pixels)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("image", overflow="fold")
    for _ in range(min(top, len(network.classes))):
        table.add_column("class")
        table.add_column("", justify="right")
    for path, of_image in zip(images, chances, strict=True):
        best = np.argsort(-of_image)[:top]
        cells = [cell for k in best for cell in (escape(network.classes[k]), f"{of_image[k]:.1%}")]
        table.add_row(escape(str(path)), *cells)
    screen().print(table)
