import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels.parse import parse_number

SPELLINGS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1e30, 1e30, allow_nan=False).map(lambda x: f"{x:.12e}"),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9).map(str),
    st.integers(-(10**30), 10**30).map(str),
)


@given(spelling=SPELLINGS)
def test_a_number_is_the_float32_that_python_reads(spelling):
    value, end = parse_number(np.frombuffer(f"{spelling}\n".encode(), np.uint8), 0)
    assert end == len(spelling)
    assert math.isclose(value, float(spelling), rel_tol=1e-14, abs_tol=1e-45)


@given(spelling=st.text("0123456789+-.eEx na", max_size=8))
def test_what_is_no_number_is_told_from_a_number_as_python_does(spelling):
    _, end = parse_number(np.frombuffer(f"{spelling}\n".encode(), np.uint8), 0)
    try:
        number = float(spelling)
    except ValueError:
        number = math.nan
    is_number = math.isfinite(number) and abs(number) < 2.0**128 and spelling.strip() == spelling
    assert (end == len(spelling) and end > 0) == is_number
