"""A table's shards on one server, for tests of kernels and of the server."""

from typing import Any

import numpy as np

from mpips.fabric.arena import Allocator
from mpips.server.shards import Shards
from mpips.table import TableSpec, header_offsets
from tests.simulated import table


def shards_of(spec: TableSpec, arena_bytes: int = 8 << 20, threads: int = 1, hold: Any = None) -> Shards:
    """All shards of a table, or some, in an arena full of what was there before."""
    arena = np.full(arena_bytes, 0xA5, np.uint8)
    space = Allocator(arena_bytes)
    headers = space.allocate(header_offsets([spec])[-1])
    shards = Shards(spec, headers, arena, space, threads)
    shards.hold(range(spec.shards) if hold is None else hold)
    shards.lead(sorted(shards.held))
    return shards


def pulled(shards: Shards, keys: Any) -> Any:
    """The values of keys, (n, width)."""
    keys = np.asarray(keys, np.uint64)
    out = np.full((keys.size, shards.spec.width), np.nan, shards.spec.dtype)
    shards.pull(keys, out)
    return out


def grouped(spec: TableSpec, keys: Any) -> Any:
    """Unique keys in the order in which a push has them: by shard."""
    from mpips.kernels.partition import shard_of

    keys = np.unique(np.asarray(keys, np.uint64))
    of = [int(shard_of(key, spec.kind == "dense", spec.shard_bits)) for key in keys]
    return keys[np.argsort(of, kind="stable")]


__all__ = ["grouped", "pulled", "shards_of", "table"]
