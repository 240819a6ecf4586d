"""Aggregation of one table on one server: an update is applied when all workers' pushes of a step are in. Pure.

A step is the number of a worker's push to the table, a worker is known by its identity. The pushes of a step are summed
in a fixed order of workers, so that the result is the same to the bit whatever the order of arrival.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mpips.errors import Error
from mpips.kernels.merge import merge_sum
from mpips.server.updates import Updates
from mpips.table import TableSpec

Array = np.ndarray[Any, Any]


def _whole(updates: Updates) -> Array:
    return updates if isinstance(updates, np.ndarray) else updates[:]


class AggregateError(Error, ValueError):
    """A push that can't be summed with those of the other workers."""


class Part(NamedTuple):
    """One worker's push, as far as it belongs to this server.

    Parameters
    ----------
    lo, hi : the positions that it covers, ``[lo, hi)``.
    keys : (n,) uint64, unique, in the order in which a push has them: ascending in a dense table, by shard and then
        ascending in a sparse one; may be empty. None: every row of ``[lo, hi)``.
    values : (n, push_width) of the table's dtype; only read, and like `keys` valid until `done` is called.
    cut : the newest cut that it comes after.
    done : called with None when the update is applied, or with why it was refused; never when a repetition took the
        part's place.
    dropped : called when it is not waited for any more, because it will come again.
    rank : the worker's.
    rule : parameters of the table's rule that are others for this push.
    """

    lo: int
    hi: int
    keys: Array | None
    values: Updates
    cut: int
    done: Callable[[Error | None], None]
    dropped: Callable[[], None] = lambda: None
    rank: int = -1
    rule: Mapping[str, float] = MappingProxyType({})

    def __str__(self) -> str:
        return f"{'rows' if self.keys is None else 'a list of keys'} of [{self.lo}, {self.hi})"


class Aggregate:
    """Parts go in by `add`; a step of which every worker's part is in is applied at once, and over.

    Pushes that are applied already are not known here: the clock tells them apart.

    Parameters
    ----------
    spec : the table.
    workers : whose pushes make a step, in the order in which they are summed.
    apply : called with (cut, lo, hi, keys or None, values, rule) of a sum, its step and its parts by worker, applies it
        by the table's update rule; an `mpips.Error` that it raises goes to every part's `done`. It comes after a cut if
        all its parts do, so a cut has the same steps of all workers.
    applied : called with (step, lo, hi, keys or None, then) after that; calls `then` when every part is `done`.

    Attributes
    ----------
    workers : the same, as the keys of a dictionary.
    """

    def __init__(
        self,
        spec: TableSpec,
        workers: Sequence[int],
        apply: Callable[[int, int, int, Array | None, Array, Mapping[str, float], int, dict[int, Part]], None],
        applied: Callable[[int, int, int, Array | None, Callable[[], None]], None],
    ) -> None:
        self._spec = spec
        self.workers = dict.fromkeys(workers)  # in their order, and quick to look up among a thousand
        self._apply = apply
        self._applied = applied
        self._pending: dict[int, dict[int, Part]] = {}
        no_keys, no_rows = np.empty(0, np.uint64), np.empty((0, spec.width), spec.dtype)
        # compiled, or loaded, before the first step has to wait for it
        merge_sum(no_keys, no_rows, no_keys, no_rows, 0)

    def add(self, worker: int, step: int, part: Part) -> None:
        """Take in a worker's part of a step, which replaces one of the same worker and step.

        Raises
        ------
        AggregateError
            for a worker that is not one of this table's, or a part that covers something else than those of the other
            workers; nothing is changed.
        """
        if worker not in self.workers:
            raise AggregateError(
                f'table "{self._spec.name}": the push of worker {worker} in step {step} has no place in a sum over '
                f"the workers {', '.join(map(str, self.workers))}"
            )
        parts = self._pending.setdefault(step, {})
        other = next((other for other in parts if other != worker), None)  # the others agree with one another
        known = part if other is None else parts[other]
        if (known.lo, known.hi, known.keys is None) != (part.lo, part.hi, part.keys is None):
            raise AggregateError(
                f'table "{self._spec.name}": in step {step} worker {worker} pushed {part}, but worker {other} '
                f"{known}; pushes that are summed must cover the same"
            )
        parts[worker] = part
        if len(parts) == len(self.workers):
            self._complete(step)

    def _complete(self, step: int) -> None:
        parts = self._pending.pop(step)
        self._finish(step, {worker: parts[worker] for worker in self.workers})

    def _finish(self, step: int, by_worker: dict[int, Part]) -> None:
        parts = list(by_worker.values())
        lo, hi = parts[0].lo, parts[0].hi

        def done(error: Error | None = None) -> None:
            for part in parts:
                part.done(error)

        try:
            keys, values = self._sum(parts)
            rule = parts[0].rule
            if any(part.rule != rule for part in parts):
                raise AggregateError(f'table "{self._spec.name}": step {step} has pushes with different rules')
            self._apply(min(part.cut for part in parts), lo, hi, keys, values, rule, step, by_worker)
        except Error as problem:
            done(problem)
        else:
            self._applied(step, lo, hi, keys, done)

    def forget(self) -> None:
        """Drop the parts that are here: their workers will send them again."""
        pending, self._pending = self._pending, {}
        for parts in pending.values():
            for part in parts.values():
                part.dropped()

    def keep(self, workers: Sequence[int]) -> None:
        """From now on the pushes of these workers make a step; those that only waited for others are over."""
        self.workers = dict.fromkeys(workers)
        for step, parts in sorted(self._pending.items()):
            for gone in parts.keys() - self.workers.keys():
                parts.pop(gone).dropped()
            if len(parts) == len(self.workers):
                self._complete(step)

    def _sum(self, parts: list[Part]) -> tuple[Array | None, Array]:
        """Keys, or None, and values of ``((a + b) + c) + …``."""
        keys, values = parts[0].keys, _whole(parts[0].values)
        bits = self._spec.shard_bits if self._spec.kind == "sparse" else 0
        for i, part in enumerate(parts[1:]):
            if keys is not None:
                assert part.keys is not None
                keys, values = merge_sum(keys, values, part.keys, _whole(part.values), bits)
            elif i == 0:
                values = values + _whole(part.values)
            else:
                values += _whole(part.values)
        return keys, values

    def waiting(self) -> dict[int, list[int]]:
        """The workers whose parts are missing, by step."""
        return {
            step: [worker for worker in self.workers if worker not in parts]
            for step, parts in sorted(self._pending.items())
        }
