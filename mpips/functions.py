"""Shard functions by name: what a server computes on its shards of a key range, and how the replies become one.

A shard function is a numba function ``f(keys, values, state, argument) -> reply`` (the user-defined functions on the
server of Li et al. 2014, section 3.3). Servers run it on every shard of the range and reduce the replies; the caller
reduces those of the servers. See `kernels.functions` for the built-in ones and `server.functions` for the running.
"""

import ast
from collections.abc import Callable, Sequence
from functools import reduce as fold
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mpips.errors import Error
from mpips.schema import nearest

Function = TypeVar("Function", bound=Callable[..., Any])
Array = np.ndarray[Any, Any]
Reduction = str | Callable[[list[Any]], Any]

NUMERIC = "biufcV"  # kinds of NumPy types that a reply may have: numbers, and records of them


class FunctionError(Error, ValueError):
    """A shard function that does not exist, does not compile or fails, or a reply that is none."""


class ShardFunction(NamedTuple):
    """A registered function (None: built in, see `kernels.functions`), how its replies are reduced, whether it changes
    values or state, and whether its argument has a number for each value.
    """

    function: Callable[..., Any] | None
    reduce: Reduction
    writes: bool = False
    by_row: bool = False


def _union(replies: Sequence[Array], _: Array) -> Array:
    every = np.sort(np.concatenate(replies), kind="stable")  # runs that are sorted already cost next to nothing
    first = np.ones(every.size, np.bool_)
    first[1:] = every[1:] != every[:-1]
    return every[first]


def _top(replies: Sequence[Array], argument: Array) -> Array:
    every = np.concatenate(replies)
    order = np.lexsort((every["key"], -np.abs(every["value"])))
    return every[order[: int(argument[0])]]


REDUCTIONS: dict[str, Callable[[Sequence[Any], Array], Any]] = {
    "sum": lambda replies, _: fold(np.add, replies),
    "max": lambda replies, _: fold(np.maximum, replies),
    "min": lambda replies, _: fold(np.minimum, replies),
    "concat": lambda replies, _: np.concatenate(replies),
    "union": _union,
    "top": _top,
}

FUNCTIONS: dict[str, ShardFunction] = {
    "sum_of_squares": ShardFunction(None, "sum"),
    "sum_of_absolute_values": ShardFunction(None, "sum"),
    "largest_absolute_value": ShardFunction(None, "max"),
    "nonzeros": ShardFunction(None, "sum"),
    "column_sums": ShardFunction(None, "sum"),
    "dot": ShardFunction(None, "sum", by_row=True),
    "top_k": ShardFunction(None, "top"),
    "above": ShardFunction(None, "union"),
    "scale": ShardFunction(None, "sum", writes=True),
    "fill": ShardFunction(None, "sum", writes=True),
    "clip": ShardFunction(None, "sum", writes=True),
    "soft_threshold": ShardFunction(None, "sum", writes=True),
    "shrink": ShardFunction(None, "sum", writes=True),
    "hard_threshold": ShardFunction(None, "sum", writes=True),
}


def shard_function(
    reduce: Reduction = "sum", writes: bool = False, by_row: bool = False
) -> Callable[[Function], Function]:
    """Register a numba function as a shard function under its own name.

    Parameters
    ----------
    reduce : how replies become one. "sum", "max" and "min" go value by value; "concat" puts arrays one after the
        other, by shard within a server and then by server; "union" sorts all their values, each once; "top" keeps the
        ``argument[0]`` records of largest absolute "value". Or a function of a list of replies, which must be
        associative: it reduces the shards of a server, then the servers.
    writes : whether the function changes values or state, which are read-only otherwise.
    by_row : the caller's argument has a number for each value of the key range, of a dense table; each shard is given
        those of its own rows, (n·width,).

    Raises
    ------
    FunctionError
        when there is no such reduction, or the function is not numba's.

    Notes
    -----
    The function is called with keys (n,) uint64; values (n, width) and state (n, width, slots) of the table's dtype;
    argument (m,) float64. It replies with a number, or an array of up to two dimensions of any numeric type. It must
    be ready for no rows (n = 0), and reply then with what leaves the reduction as it is, such as 0 for a sum.

    Examples
    --------
    >>> @mpips.shard_function(reduce="sum")
    ... @numba.njit(nogil=True)
    ... def larger_than(keys, values, state, argument):
    ...     return (values > argument[0]).sum()
    """
    if not callable(reduce) and reduce not in REDUCTIONS:
        raise FunctionError(f'reduction "{reduce}" does not exist; {nearest(str(reduce), REDUCTIONS)}')

    def register(function: Function) -> Function:
        name = function.__name__
        if not hasattr(function, "py_func"):
            raise FunctionError(f'shard function "{name}" is plain Python: put @numba.njit(nogil=True) right above it')
        FUNCTIONS[name] = ShardFunction(function, reduce, writes, by_row)
        return function

    return register


def find(name: str) -> ShardFunction:
    """The shard function of a name.

    Raises
    ------
    FunctionError
        when it does not exist.
    """
    if name not in FUNCTIONS:
        raise FunctionError(f'shard function "{name}" does not exist; {nearest(name, FUNCTIONS)}')
    return FUNCTIONS[name]


def reply_of(name: str, reply: Any) -> Any:
    """What a function replied, as a number or an array of up to two dimensions.

    Raises
    ------
    FunctionError
        when it is neither.
    """
    array = np.asarray(reply)
    if array.dtype.kind not in NUMERIC or array.ndim > 2:
        raise FunctionError(
            f'shard function "{name}" must reply with a number, or an array of one or two dimensions, got '
            + (repr(reply) if array.dtype.kind not in NUMERIC else f"an array of shape {array.shape}")
        )
    return array if array.ndim else array.item()


def reduce_replies(name: str, replies: Sequence[Any], argument: Any) -> Any:
    """One reply of several, at least one, to a function that was called with this argument.

    Raises
    ------
    FunctionError
        when the function does not exist, or its replies can't be reduced as it says.
    """
    reduce = find(name).reduce
    try:
        reduced = (
            reduce(list(replies)) if callable(reduce) else REDUCTIONS[reduce](replies, np.asarray(argument, np.float64))
        )
    except Exception as error:  # the user's own function may raise any
        how = getattr(reduce, "__name__", reduce)
        raise FunctionError(f'shard function "{name}": its replies can\'t be reduced by "{how}": {error}') from error
    return reply_of(name, reduced)


def pack(reply: Any) -> tuple[Array, str, tuple[int, ...]]:
    """A reply as it travels: its bytes (n,) uint8, the text of its type, its shape."""
    array = np.asarray(reply)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8), str(array.dtype), array.shape


def unpack(data: Array, dtype: str, shape: Sequence[int]) -> Any:
    """The reply of which `pack` gave the bytes (n,) uint8, type and shape; `data` is copied."""
    kind = np.dtype(ast.literal_eval(dtype)) if dtype[0] in "[{" else np.dtype(dtype)
    array = np.frombuffer(data, kind).reshape(shape).copy()
    return array if array.ndim else array.item()
