"""A worker's working set of a table as a vector over sorted keys: its linear algebra.

Li et al. 2014, section 3.1: (key, value) pairs as vectors and matrices, where a key that is missing is zero.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from mpips.dataserver.batch import Batch
from mpips.errors import Error
from mpips.kernels.gather import check_keys
from mpips.kernels.vector import dot, multiply, union
from mpips.worker.keys import KeyRangeError

Array = np.ndarray[Any, Any]


class VectorError(Error, ValueError):
    """Values that do not have the shape that the keys ask for, or operands that do not fit together."""


class Vector:
    """Values at sorted keys; a key that is missing has the value zero.

    Every operation makes a new vector, which may share keys and values with the old ones.

    Parameters
    ----------
    keys : (n,) integers, sorted, each once.
    values : (n,) or (n, width); integers become float64.

    Raises
    ------
    KeyRangeError
        when the keys are not integers, not sorted or not unique.
    VectorError
        when there is not one row of values for each key.

    Notes
    -----
    ``u + w``, ``u - w`` and ``u @ w`` go by key: over the keys of both, or those in common.

    ``X @ w`` takes an array or a SciPy sparse matrix, and gives an array. With as many columns as w has keys, column j
    belongs to the j-th key; with any other number, column j belongs to key j. (Where both are possible they are the
    same: n different keys below n are 0..n-1.) ``w @ X`` takes the rows of X so, and is wᵀX.

    ``batch @ w`` goes by key, and gives a number for every row of the batch (a row of them when w has a width).

    Examples
    --------
    >>> w = Vector(batch.keys, table.pull(batch.keys).wait())
    >>> error = 1 / (1 + np.exp(-(batch @ w))) - batch.labels
    """

    __array_ufunc__ = None  # NumPy leaves operators with a vector to the vector
    __slots__ = ("keys", "values")

    def __init__(self, keys: Any, values: Any) -> None:
        self.keys = _sorted_keys(keys)
        self.values: Array = np.asarray(values)
        shape, n = self.values.shape, self.keys.size
        if len(shape) not in (1, 2) or shape[0] != n or self.values.dtype.kind not in "fiub":
            raise VectorError(f"{n} keys need numbers of shape ({n},) or ({n}, width), got {self.values.dtype} {shape}")
        if self.values.dtype.kind != "f":
            self.values = self.values.astype(np.float64)

    @staticmethod
    def _of(keys: Array, values: Array) -> "Vector":
        """A vector over keys that are known to be sorted."""
        made = Vector.__new__(Vector)
        made.keys, made.values = keys, values
        return made

    def __repr__(self) -> str:
        width = "" if self.values.ndim == 1 else f", width={self.values.shape[1]}"
        return f"Vector({len(self)} keys{width}, {self.values.dtype})"

    # --- what it holds ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.keys.size

    def __getitem__(self, keys: Any) -> "Vector":
        """The vector of these sorted keys (n,): zero at those that are not in this one."""
        wanted = _sorted_keys(keys)
        if _same(wanted, self.keys):
            return self
        values = np.zeros((wanted.size, *self._row), self.values.dtype)
        if len(self):
            at = np.minimum(np.searchsorted(self.keys, wanted), len(self) - 1)
            found = self.keys[at] == wanted
            values[found] = self.values[at[found]]
        return Vector._of(wanted, values)

    def dense(self, n: int) -> Array:
        """Values (n,) or (n, width) of the keys 0..n-1.

        Raises
        ------
        VectorError
            when it has a key beyond them.
        """
        if len(self) and self.keys[-1] >= n:
            raise VectorError(f"key {self.keys[-1]} of a vector of {len(self)} keys is not below {n}")
        out = np.zeros((n, *self._row), self.values.dtype)
        out[self.keys.astype(np.int64)] = self.values
        return out

    def nonzeros(self) -> int:
        """How many values are not zero."""
        return int(np.count_nonzero(self.values))

    def norm(self, ord: float = 2) -> float:  # noqa: A002 -- as NumPy has it
        """Norm over all values, in float64: `ord` is 2, 1 or `math.inf`.

        Raises
        ------
        VectorError
            for another `ord`.
        """
        if ord == 2:
            return math.sqrt(self @ self)
        if ord == 1:
            return float(np.abs(self.values).sum(dtype=np.float64))
        if ord == math.inf:
            return float(np.abs(self.values).max(initial=0.0))
        raise VectorError(f"a vector has the norms 2, 1 and inf, got ord={ord}")

    # --- sums and multiples -----------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> "Vector":
        return self._together(other, np.add) if isinstance(other, Vector) else NotImplemented

    def __sub__(self, other: Any) -> "Vector":
        return self._together(other, np.subtract) if isinstance(other, Vector) else NotImplemented

    def _together(self, other: "Vector", operation: Callable[..., Array]) -> "Vector":
        self._check_row(other)
        if _same(self.keys, other.keys):
            return Vector._of(self.keys, operation(self.values, other.values))
        keys, at, other_at = union(self.keys, other.keys)
        values = np.zeros((keys.size, *self._row), np.result_type(self.values, other.values))
        values[at] = self.values
        values[other_at] = operation(values[other_at], other.values)
        return Vector._of(keys, values)

    def _check_row(self, other: "Vector") -> None:
        if self._row != other._row:
            raise VectorError(f"{self!r} and {other!r} do not have as many values for each key")

    @property
    def _row(self) -> tuple[int, ...]:
        """Shape of what it has for a key: () or (width,)."""
        shape: tuple[int, ...] = self.values.shape
        return shape[1:]

    def __neg__(self) -> "Vector":
        return Vector._of(self.keys, -self.values)

    def __mul__(self, factor: Any) -> "Vector":
        if not isinstance(factor, Real):
            return NotImplemented
        return Vector._of(self.keys, self.values * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "Vector":
        if not isinstance(divisor, Real):
            return NotImplemented
        return Vector._of(self.keys, self.values / divisor)

    # --- products ---------------------------------------------------------------------------------------------------

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Vector):
            self._check_row(other)
            return dot(self.keys, _columns(self.values), other.keys, _columns(other.values))
        return self._along(other.shape[0]).T @ other if _is_matrix(other) else NotImplemented

    def __rmatmul__(self, other: Any) -> Array:
        if isinstance(other, Batch):
            out = np.empty((len(other), *self._row))
            multiply(other.indptr, other.indices, other.values, _columns(self[other.keys].values), _columns(out))
            return out
        return other @ self._along(other.shape[-1]) if _is_matrix(other) else NotImplemented

    def _along(self, size: int) -> Array:
        """The values along a side of a matrix: of the own keys, or of all keys below its size."""
        if size == len(self):
            return self.values
        if len(self) and self.keys[-1] >= size:
            raise VectorError(
                f"{size} rows or columns of a matrix fit neither the {len(self)} keys of a vector, nor all keys up to "
                f"its last, {self.keys[-1]}"
            )
        return self.dense(size)


def _sorted_keys(keys: Any) -> Array:
    array = np.asarray(keys)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise KeyRangeError(f"the keys of a vector must be a list of integers, got {array.dtype} {array.shape}")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise KeyRangeError(f"the keys of a vector must not be negative, got {array.min()}")
    array = np.ascontiguousarray(array, np.uint64)
    wrong = check_keys(array, np.uint64(0))
    if wrong >= 0:
        raise KeyRangeError(
            f"the keys of a vector must be sorted and unique, but {array[wrong - 1]} precedes {array[wrong]}"
        )
    return array


def _same(keys: Array, others: Array) -> bool:
    return keys is others or np.array_equal(keys, others)


def _columns(values: Array) -> Array:
    """(n,) as (n, 1), as kernels take them."""
    return values if values.ndim == 2 else values[:, np.newaxis]


def _is_matrix(operand: Any) -> bool:
    """An array, or a SciPy sparse matrix, known without SciPy by what it can become."""
    return (isinstance(operand, np.ndarray) and operand.ndim in (1, 2)) or hasattr(operand, "tocsr")
