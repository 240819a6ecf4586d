"""Both ends of a way through filters, for tests."""

from typing import Any

import msgspec
import numpy as np

from mpips.filters import Chain, Packet


class Way:
    """A chain at the sender and one at the receiver."""

    def __init__(self, *specs: dict[str, Any], direction: Any = "push", width: int = 1, dtype: str = "float32") -> None:
        def chain() -> Chain:
            return Chain(specs, direction, width, dtype, rows=1000)

        self.direction = direction
        self.sender, self.receiver = chain(), chain()

    def decode(self, wire: Any, keys: Any = None) -> Packet:
        """What the receiver makes of it."""
        notes = msgspec.msgpack.decode(msgspec.msgpack.encode(wire.notes))
        asked = keys if self.direction == "pull" else None
        return self.receiver.decode(wire.keys, wire.values, notes, wire.count, asked)

    def send(self, keys: Any, values: Any) -> Packet:
        """Encode and decode."""
        return self.decode(self.sender.encode(keys, values), keys)


def some_keys(n: int, rng: np.random.Generator, rows: int = 1_000_000) -> Any:
    """Sorted unique keys."""
    return np.sort(rng.choice(rows, n, replace=False)).astype(np.uint64)


def column(*values: float) -> Any:
    """Values of width 1."""
    return np.array(values, np.float32).reshape(-1, 1)
