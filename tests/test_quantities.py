"""Sizes and times as people write them."""

import pytest

from mpips.quantities import Seconds, Size


@pytest.mark.parametrize(
    ("text", "size"),
    [("512 MB", 512_000_000), ("4GB", 4_000_000_000), ("1.5 KiB", 1536), ("2 GiB", 2**31), ("64", 64), (4096, 4096)],
)
def test_size_is_read_in_bytes(text: object, size: int) -> None:
    assert Size.parse(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1 MB", "0", "3 XB", 1.5, True, None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        Size.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90 s", 90), ("5 min", 300), ("2h", 7200), ("1.5 min", 90), ("0", 0), (12, 12), (0.5, 0.5)]
)
def test_time_is_read_in_seconds(text: object, seconds: float) -> None:
    assert Seconds.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1 s", "3 days", "1e999", "nan", True, None])
def test_what_is_no_time_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a time"):
        Seconds.parse(text)
