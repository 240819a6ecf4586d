"""Numba kernels, nothing else: pure functions over arrays, compiled at first use and cached for later runs.

numba looks only at a kernel's own file when it decides whether a cached one is up to date, but kernels call each other
across files. So the cache folder's name holds a digest of all of them.
"""

import hashlib
import os
from pathlib import Path

import numba

_digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
_base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
numba.config.CACHE_DIR = str(Path(_base) / "mpips" / f"kernels-{_digest[:12]}")
