"""Numbers of bytes, and times, as a person writes them."""

import math
import re
from typing import Any

BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BYTES |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
SECONDS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}


class Size(int):
    """A number of bytes, written ``"512 MB"``, ``"4 GiB"`` or as a plain number."""

    @classmethod
    def parse(cls, value: object) -> "Size":
        """Read a size.

        Raises
        ------
        ValueError
            when `value` is not a size, or not above 0.
        """
        text = str(value).upper() if isinstance(value, str | int) else ""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text)
        if match and match[2] in BYTES:
            size = cls(float(match[1]) * BYTES[match[2]])
            if size > 0:
                return size
        raise ValueError(f'must be a size above 0 like "512 MB" or "4 GB", got {value!r}')


class Seconds(float):
    """A time, written ``"90 s"``, ``"5 min"``, ``"2 h"`` or as a plain number of seconds."""

    @classmethod
    def parse(cls, value: Any) -> "Seconds":
        """Read a time.

        Raises
        ------
        ValueError
            when `value` is not a time, or below 0.
        """
        text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|)\s*", text)
        if match and math.isfinite(seconds := float(match[1]) * SECONDS[match[2]]):
            return cls(seconds)
        raise ValueError(f'must be a time like "90 s", "5 min" or "2 h", got {value!r}')


def from_text(kind: type, value: Any) -> Size | Seconds:
    """A value of these kinds, as msgspec's `dec_hook`."""
    if kind is Size or kind is Seconds:
        return Size.parse(value) if kind is Size else Seconds.parse(value)
    raise NotImplementedError(kind)
