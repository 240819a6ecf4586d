"""A number of bytes, as a person writes it."""

import re

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


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
        if match and match[2] in UNITS:
            size = cls(float(match[1]) * UNITS[match[2]])
            if size > 0:
                return size
        raise ValueError(f'must be a size above 0 like "512 MB" or "4 GB", got {value!r}')
