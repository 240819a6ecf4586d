"""A table as linear algebra on the worker: its norms, its largest entries, and parts of it as vectors."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np

from mpips.dataserver.batch import Batch
from mpips.table import TableSpec
from mpips.tasks import Task
from mpips.worker.keys import Keys
from mpips.worker.vector import Vector

NORMS = {1: "sum_of_absolute_values", 2: "sum_of_squares", np.inf: "largest_absolute_value"}


class Algebra(ABC):
    """What `Table` has beside push and pull. What waits here waits as `Task.wait` does."""

    spec: TableSpec

    @abstractmethod
    def pull(self, keys: Any) -> Task[Any]:
        """Values of keys."""

    @abstractmethod
    def call(
        self,
        function: str,
        keys: range | slice = slice(None),
        argument: Any = (),
        after: Iterable[Task[Any]] = (),
    ) -> Task[Any]:
        """Run a shard function."""

    def norm(self, order: float = 2, keys: range | slice = slice(None)) -> float:
        """Norm of the values in a key range, computed by the servers.

        Parameters
        ----------
        order : 1, 2 or ``np.inf``.

        Raises
        ------
        ValueError
            for another order.
        """
        if order not in NORMS:
            raise ValueError(f"norms are of order 1, 2 or inf, got {order}")
        found = float(self.call(NORMS[order], keys).wait())
        return found**0.5 if order == 2 else found

    def dot(self, other: Any, keys: range | slice = slice(None)) -> float:
        """Inner product of the values of a key range with as many numbers, (n,) or (n, width), computed by the servers.

        Raises
        ------
        ShapeError
            when there are not as many; for a sparse table, whose vectors have one: ``w[keys] @ u``.
        """
        return float(self.call("dot", keys, other).wait())

    def nonzeros(self, keys: range | slice = slice(None)) -> int:
        """How many values in a key range are not zero, counted by the servers."""
        return int(self.call("nonzeros", keys).wait())

    def top(self, k: int, keys: range | slice = slice(None)) -> Any:
        """The `k` entries of largest absolute value in a key range: records with the fields "key" and "value"."""
        return self.call("top_k", keys, [k]).wait()

    def __getitem__(self, keys: Any) -> Vector:
        """The values of a key range or a sorted key list, as a `Vector`: a worker's working set."""
        found = self.pull(keys).wait()
        if isinstance(keys, range | slice):
            if self.spec.kind == "sparse":
                return Vector(*found)
            first = keys.start or 0
            keys = np.arange(first, first + len(found), dtype=np.uint64)
        return Vector(keys.array if isinstance(keys, Keys) else keys, found)

    def __rmatmul__(self, rows: Any) -> Any:
        """``X @ table``: a number for each row of X, a batch; or an array or SciPy matrix whose column j is key j.

        Only the keys that occur in X are pulled.
        """
        if isinstance(rows, Batch):
            return rows @ self[rows.keys]
        compressed = rows.tocsc() if hasattr(rows, "tocsc") else np.asarray(rows)
        if isinstance(compressed, np.ndarray):
            return compressed @ self[range(compressed.shape[1])]
        used = np.flatnonzero(np.diff(compressed.indptr))
        return compressed[:, used] @ self[used]

    __array_ufunc__ = None  # NumPy leaves ``X @ table`` to the table

    def __add__(self, other: "Algebra | Vector") -> Vector:
        """The sum of two tables, or of a table and a vector, over all keys; of some of them: ``w[keys] + u[keys]``."""
        return self[:] + (other[:] if isinstance(other, Algebra) else other)

    def __sub__(self, other: "Algebra | Vector") -> Vector:
        """The difference, as the sum."""
        return self[:] - (other[:] if isinstance(other, Algebra) else other)
