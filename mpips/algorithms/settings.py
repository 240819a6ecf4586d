"""What the job file may say of an algorithm, ``[algorithm.NAME]``; apart from them, since they take long to import."""

from typing import Annotated, Literal

import msgspec


class BlockSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the batch solver of `algorithms.linear`.

    Parameters
    ----------
    blocks : how many blocks of features there are at least; features of two fields of the data are never in one.
    order : of the blocks in a pass.
    tolerance : stop when a pass over every weight changes the objective by less than this share of it.
    """

    blocks: Annotated[int, msgspec.Meta(ge=1)] = 16
    order: Literal["random", "cyclic"] = "random"
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 1e-5
