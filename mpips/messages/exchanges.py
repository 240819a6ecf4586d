"""Workers among each other: arrays, such as the activations of a part of a network."""

from mpips.messages.message import Message


class Piece(Message, frozen=True):
    """Worker → worker: what I have for you under this key, which begins with the era, lies at `offset`, `size` bytes,
    until you say `PieceRead`. It is the `number`-th that I have laid for anyone.
    """

    number: int
    key: list[int]
    offset: int
    size: int


class PieceRead(Message, frozen=True):
    """Worker → worker: I have read, or will not read, your `number`-th piece."""

    number: int
