"""What a push has for its rows: the updates themselves, or matrices that they are the product of."""

from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@cache
def _one_thread_for_each_shard() -> None:
    """A server works on several shards at once: were each product at all cores, they would be in each other's way."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")


class Multiplied:
    """Updates that are a product, left · rightᵀ, of which those are multiplied out that are asked for.

    Parameters
    ----------
    left : (rows, terms).
    right : (width, terms).
    """

    def __init__(self, left: Array, right: Array) -> None:
        _one_thread_for_each_shard()
        self._left = left
        self._right = right

    def __getitem__(self, rows: Any) -> Array:
        """The updates of some rows."""
        updates: Array = self._left[rows] @ self._right.T
        return updates


Updates = Array | Multiplied
