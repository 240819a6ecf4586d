"""Numba kernels, nothing else: pure functions over arrays, compiled at first use and cached for later runs.

numba looks only at a kernel's own file when it decides whether a cached one is up to date, but kernels call each other
across files. So the cache folder's name holds a digest of all of them, and of what is compiled into them.
"""

import hashlib
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numba
from numba.np import linalg

CONSTANTS = ("comparisons", "metrics", "rule")  # modules whose constants and types are compiled in


def _cache_folder() -> Path:
    """A folder for these very kernels: in the user's cache, or where that can't be written, among temporary files."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in [*sorted(here.glob("*.py")), *(here.parent / f"{name}.py" for name in CONSTANTS)]:
        digest.update(path.read_bytes())
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "mpips", f"kernels-{digest.hexdigest()[:12]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir(), f"mpips-{os.getuid()}", folder.name)
    return folder


def _find_blas_later() -> None:
    """Have numba not import SciPy before a function needs its BLAS.

    It does so when it loads its first function, only to know whether it could: a fifth of a second in every rank.
    """
    ensure = linalg.ensure_blas

    def there() -> None:
        linalg.ensure_blas = ensure
        if find_spec("scipy") is None:
            ensure()

    if "numba.np.arraymath" not in sys.modules:
        linalg.ensure_blas = there


numba.config.CACHE_DIR = str(_cache_folder())
_find_blas_later()
