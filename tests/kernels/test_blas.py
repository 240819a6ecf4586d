"""numba imports SciPy when a function needs its BLAS, and not for kernels, which need none."""

import subprocess
import sys

PROGRAM = """
import sys
import numba, numpy as np
from mpips.kernels.gather import check_keys

check_keys(np.zeros(1, np.uint64), np.uint64(3))
assert "scipy.linalg" not in sys.modules
dot = numba.njit(lambda one, other: np.dot(one, other))
print(dot(np.ones(3), np.ones(3)), "scipy.linalg" in sys.modules)
"""


def test_scipy_is_imported_when_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "3.0 True\n", done.stderr
