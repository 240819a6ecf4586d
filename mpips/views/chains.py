"""The chains of a table's shards in a view: who takes the pushes of each, who has copies, who is getting one. Pure.

Every rank works them out from the view by itself, so a view is as large as the job, not as its tables.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mpips.table import TableSpec
from mpips.views.ring import Ring
from mpips.views.view import View


class Chain(NamedTuple):
    """The servers of one shard that live, head first.

    Parameters
    ----------
    servers : all of them; a push is done when each has it that has a copy.
    copies : how many of them, from the head on, have the shard; the others are getting it.
    """

    servers: tuple[int, ...]
    copies: int


class Chains(NamedTuple):
    """The chains of a table.

    Parameters
    ----------
    chains : of each shard.
    heads : (shards,) int64, the rank at the head of each; -1 where no copy lives.
    """

    chains: list[Chain]
    heads: np.ndarray[Any, np.dtype[np.int64]]


def chains_of(view: View, spec: TableSpec) -> Chains:
    """The chains of a table in a view."""
    key = tuple(sorted(view.ring.items())), tuple(sorted(view.target.items()))
    return _chains(key, tuple(view.nodes), frozenset(view.lost), view.replicas, spec.name, spec.shards)


@lru_cache(maxsize=64)
def _chains(
    rings: tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]],
    nodes: tuple[int, ...],
    lost: frozenset[int],
    replicas: int,
    table: str,
    shards: int,
) -> Chains:
    settled, target = (Ring(dict(ring), nodes) for ring in rings)
    steady = rings[0] == rings[1] and not lost
    chains, heads = [], np.empty(shards, np.int64)
    for shard in range(shards):
        have = [server for server in settled.chain(table, shard, replicas) if server not in lost]
        coming = [] if steady else target.chain(table, shard, replicas)
        servers = [*have, *(server for server in coming if server not in have and server not in lost)]
        chains.append(Chain(tuple(servers), len(have)))
        heads[shard] = have[0] if have else -1
    heads.flags.writeable = False
    return Chains(chains, heads)
