"""Copies of shards: what the servers of a chain tell each other."""

from typing import Literal

from mpips.messages.message import Message


class Change(Message, frozen=True):
    """Server → next of a chain: rows of your copies have become what lies in my arena, packed as `server.rows` has it.

    `number` is what you acknowledge it by, `steps` are those of the pushes that did it, (identity, lo, hi, step) each;
    the head has applied them in view `applied`, 0 for none in particular. `shards` and `rows` are counts; with `runs`
    the rows of each shard are neighbours. There are these kinds:

    - "rows" follows the last change of these shards that you have;
    - "whole" is a shard to take as a new copy; "same" says that the copy that you have is up to date;
    - "later" are rows that may have changed more than once since you were sent their shards;
    - "clock" is what is applied to all shards that you have by one path: int64, how many servers are before me on it,
      who they are, then entries as in `steps`, `rows` of them.
    """

    view: int
    number: int
    table: int
    applied: int
    kind: Literal["rows", "later", "whole", "same", "clock"]
    shards: int
    rows: int
    runs: bool
    offset: int
    size: int
    steps: list[tuple[int, int, int, int]]


class ChangeTaken(Message, frozen=True):
    """Next of a chain → server: your change is here, and at every copy after mine in the chains of my view."""

    view: int
    number: int


class ShardsWanted(Message, frozen=True):
    """Server → the one before it in a chain: give me copies of these shards: table, shard, and the number of the last
    change that my copy has, or -1 without one.
    """

    view: int
    wanted: list[tuple[int, int, int]]
