"""Numba kernels, nothing else: pure functions over arrays, compiled at first use and cached for later runs.

numba looks only at a kernel's own file when it decides whether a cached one is up to date, but kernels call each other
across files. So the cache folder's name holds a digest of all of them, and of what is compiled into them.
"""

import hashlib
import os
import tempfile
from pathlib import Path

import numba

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


numba.config.CACHE_DIR = str(_cache_folder())
