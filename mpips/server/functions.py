"""A shard function on the shards of one server: run on each of them, the replies reduced to one."""

from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numba.core.errors import NumbaError

from mpips.functions import FunctionError, find, reduce_replies, reply_of
from mpips.kernels import functions, header
from mpips.server.shards import THREADED_ROWS, Shards

Array = np.ndarray[Any, Any]


def run(shards: Shards, concerned: list[int], name: str, lo: int, hi: int | None, argument: Any) -> Any:
    """Run a shard function on the rows ``[lo, hi)`` of some shards.

    Parameters
    ----------
    shards : this server's shards of a table.
    concerned : those to run it on.
    name : a function of `mpips.functions.FUNCTIONS`.
    lo, hi : the key range; `hi` None: no bound.
    argument : (m,) numbers, or one.

    Returns
    -------
    A number or an array: the replies reduced in the order of the shards, whatever the number of threads; without
    any row the reply to no rows.

    Raises
    ------
    FunctionError
        when the function does not exist, does not compile or fails, or its replies can't be reduced. Of a function
        that fails while it writes, a dense shard keeps what is written by then, a sparse one nothing.
    """
    call = _Call(shards, name, np.asarray(argument, np.float64).reshape(-1))
    nothing = call.on_no_rows()  # compiles it, so that no shard is odd for as long as that takes
    spec, pool = shards.spec, shards._pool
    if spec.kind == "dense":
        end = spec.rows if hi is None else min(hi, spec.rows)
        one: Callable[[int], Any] = partial(call.on_dense, lo, end)
        rows = end - lo
    else:
        one = partial(call.on_sparse, lo, hi)
        rows = sum(int(shards._header(shard)[header.COUNT]) for shard in concerned)
    if pool is None or rows * spec.width < THREADED_ROWS:
        replies = [one(shard) for shard in sorted(concerned)]
    else:
        futures = [pool.submit(one, shard) for shard in sorted(concerned)]
        wait(futures)  # all of them, also when one fails: nobody writes after this returns
        replies = [future.result() for future in futures]
    replies = [reply for reply in replies if reply is not None]
    return reduce_replies(name, replies or [nothing], argument)


class _Call:
    """A shard function with its argument, on parts of a table's shards."""

    def __init__(self, shards: Shards, name: str, argument: Array) -> None:
        known = find(name)
        self._shards = shards
        self._name = name
        self._writes = known.writes
        self._by_row = known.by_row
        self._function = known.function or getattr(functions, name)
        self._argument = argument

    def on_no_rows(self) -> Any:
        """What it replies to no rows."""
        spec = self._shards.spec
        values = np.empty((0, spec.width), spec.dtype)
        state = np.empty((0, spec.width, spec.slots), spec.dtype)
        return self._reply(np.empty(0, np.uint64), values, state, self._argument[: 0 if self._by_row else None])

    def on_dense(self, lo: int, hi: int, shard: int) -> Any:
        """Its reply to the rows ``[lo, hi)`` of a dense shard, changed in place; None without any."""
        start, end = self._shards.spec.shard_range(shard)
        a, b = max(lo, start), min(hi, end)
        if a >= b:
            return None
        values, state = (part[a - start : b - start] for part in self._shards.dense_rows(shard))
        keys = np.arange(a, b, dtype=np.uint64)
        width = self._shards.spec.width
        argument = self._argument[(a - lo) * width : (b - lo) * width] if self._by_row else self._argument
        if not self._writes:
            return self._reply(keys, values, state, argument)
        with self._odd(shard):
            return self._reply(keys, values, state, argument)

    def on_sparse(self, lo: int, hi: int | None, shard: int) -> Any:
        """Its reply to the rows with keys in ``[lo, hi)`` of a sparse shard, written back; None without any."""
        keys, values, state = self._shards.rows(shard, lo, hi)
        if keys.size == 0:
            return None
        reply = self._reply(keys, values, state, self._argument)
        if self._writes:
            with self._odd(shard):
                self._shards.load(iter([(keys, values, state)]))
        return reply

    @contextmanager
    def _odd(self, shard: int) -> Iterator[None]:
        """Have the shard's version odd meanwhile, as its readers expect of one that is written."""
        words, head = self._shards._words, self._shards._headers + shard * header.WORDS
        functions.turn(words, head)
        try:
            yield
        finally:
            functions.turn(words, head)

    def _reply(self, keys: Array, values: Array, state: Array, argument: Array) -> Any:
        if not self._writes:
            values, state = _read_only(values), _read_only(state)
        try:
            reply = self._function(_read_only(keys), values, state, _read_only(argument))
        except NumbaError as error:
            raise FunctionError(f'shard function "{self._name}" does not compile in numba: {_why(error)}') from error
        except Exception as error:  # the user's own function may raise any
            what = str(error) or type(error).__name__
            raise FunctionError(
                f'shard function "{self._name}" failed on table "{self._shards.spec.name}": {what}'
            ) from error
        return reply_of(self._name, reply)


def _read_only(array: Array) -> Array:
    """A view that numba refuses to compile a write to."""
    view = array.view()
    view.flags.writeable = False
    return view


def _why(error: NumbaError) -> str:
    """The line of numba's report that says what is wrong."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    for sign in ("Cannot modify readonly", "Invalid use", ">>> "):
        for line in said:
            if sign in line:
                return line
    return next((line for line in said if not line.startswith("Failed in nopython mode")), said[0])
