"""The data: batches that workers ask data servers for, and the dictionary of names that those make together."""

from mpips.messages.message import Message


class BatchRequest(Message, frozen=True):
    """Worker → data server: have this batch of a part, as it is in this epoch, ready in your arena; it is my request
    `number`.
    """

    number: int
    part: int
    batch: int
    epoch: int = 0


class BatchReady(Message, frozen=True):
    """Data server → worker: the batch of request `number` is at `offset`, `size` bytes, until you say `BatchTaken`."""

    number: int
    offset: int
    size: int


class BatchTaken(Message, frozen=True):
    """Worker → data server: I need the batch of request `number` no longer, or not of you."""

    number: int


class DictionaryWanted(Message, frozen=True):
    """Data server of the first part → data server: when you have the names of all parts, give them to me."""


class DictionaryPart(Message, frozen=True):
    """Data server → data server of the first part: the feature names that this part of the data has; give me those of
    all parts.
    """

    part: int
    offset: int
    size: int


class DictionaryWhole(Message, frozen=True):
    """Data server → data server: the names of all parts, in order."""

    offset: int
    size: int


class DictionaryTaken(Message, frozen=True):
    """Data server → data server: I have read, or need not read, your names of this part; None: of all."""

    part: int | None
