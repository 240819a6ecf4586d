"""Tables: what workers ask servers for.

All of it are tasks: each has a time, counted by the rank that asks, and the times of the tasks that it comes after.
"""

from typing import Any, Literal

import msgspec

from mpips.messages.message import Message


class Coded(msgspec.Struct, frozen=True, array_like=True):
    """How filters have packed keys and values: bytes of each in the arena, and a note of each filter."""

    keys: int
    values: int
    notes: list[Any]


class Product(msgspec.Struct, frozen=True, array_like=True):
    """Updates as a product, left · rightᵀ: the matrix `left` (rows, terms) lies at this offset of the worker's arena,
    `right` (numbers of a row, terms) where values would.
    """

    terms: int
    left: int


class Push(Message, frozen=True):
    """Worker → server: updates for `count` keys within ``[lo, hi)`` lie in my arena; they are those of your shards in
    this view.

    Clocks know it as push number `step` of `identity` to this table; `part` tells apart what several servers, or one
    after the other, are sent of a push. `keys` is the offset of the keys (uint64), or None when there is one update for
    every position of the range. What is sent again, to another server than at first, may lie in more than one place:
    `more` has (keys, values, count) of the others. Generations up to `cut` that are cuts must not have it in them.

    `rule` has parameters of the table's rule that are others for this push. With `product`, of a push to a range, the
    updates are a product of two matrices: see `Product`.
    """

    time: int
    after: list[int]
    view: int
    part: int
    table: int
    identity: int
    step: int
    lo: int
    hi: int
    count: int
    keys: int | None
    values: int
    coded: Coded | None
    more: list[tuple[int, int, int]] = msgspec.field(default_factory=list)
    cut: int = 0
    rule: dict[str, float] = msgspec.field(default_factory=dict)
    product: Product | None = None


class PushReply(Message, frozen=True):
    """Server → worker: this part of task `time` is applied, at every copy."""

    time: int
    part: int


class Pull(Message, frozen=True):
    """Worker on another node → server: leave the values of these keys in your arena; with `above`, also whether this
    slot of their state is above this threshold.
    """

    time: int
    after: list[int]
    view: int
    table: int
    count: int
    keys: int
    coded: Coded | None
    above: tuple[int, float] | None


class PullScan(Message, frozen=True):
    """Worker on another node → server: leave the keys in ``[lo, hi)`` that your sparse shards hold, and their
    values.
    """

    time: int
    after: list[int]
    view: int
    table: int
    lo: int
    hi: int | None


class PullReply(Message, frozen=True):
    """Server → worker: the answer of task `time`, `count` rows: keys (for a scan), values, and `flags` bytes of packed
    bits (if they were asked for), in my arena.
    """

    time: int
    count: int
    keys: int
    values: int
    coded: Coded | None
    flags: int


class KeysWanted(Message, frozen=True):
    """Server → worker: of task `time` I know the signature of the keys, but not the keys: give them to me."""

    time: int
    table: int
    direction: Literal["push", "request"]
    signature: int


class KeysGiven(Message, frozen=True):
    """Worker → server: `count` of the keys (uint64) of task `time` lie in my arena, and `left` more will follow when
    you have said `KeysTaken`.
    """

    time: int
    count: int
    keys: int
    left: int


class KeysTaken(Message, frozen=True):
    """Server → worker: I have read the keys of task `time` that you have given me."""

    time: int


class CallShards(Message, frozen=True):
    """Worker → server: run a registered function on your shards of ``[lo, hi)``, with an argument of `numbers` float64
    that lies in my arena; leave its reply in yours. One that writes has part, identity, step and cut as a push has.
    """

    time: int
    after: list[int]
    view: int
    part: int
    table: int
    identity: int
    step: int
    function: str
    lo: int
    hi: int | None
    argument: int
    numbers: int
    cut: int = 0


class ShardsReply(Message, frozen=True):
    """Server → worker: the reply of task `time`, or of this part of it, lies in my arena."""

    time: int
    part: int
    offset: int
    size: int
    dtype: str
    shape: list[int]


class Taken(Message, frozen=True):
    """Whoever asked → who was asked: I have read the answer of task `time`, or of this part of it."""

    time: int
    part: int = 0
