"""Consistent hashing: every server stands at many places of a ring, a shard belongs to the next one clockwise.

Li et al. 2014, section 4.3. Many virtual servers for each real one balance the load and let the shards of a server that
leaves spread over all others; only the share of a server that joins has to move.
"""

import bisect
import hashlib
from collections.abc import Sequence
from functools import lru_cache

VIRTUAL_SERVERS = 128


def _place(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=8)
def _stand(servers: tuple[int, ...], virtual: int) -> tuple[list[int], list[int]]:
    """Where the virtual servers stand, in order, and whose they are."""
    points = sorted((_place(f"server {server}/{i}"), server) for server in servers for i in range(virtual))
    return [point for point, _ in points], [server for _, server in points]


class Ring:
    """The ring of one view.

    Parameters
    ----------
    servers : ranks of the servers.
    nodes : node of every rank; the servers of a chain stand on different nodes while there are any left.
    virtual : virtual servers for each server.
    """

    def __init__(self, servers: Sequence[int], nodes: Sequence[int], virtual: int = VIRTUAL_SERVERS) -> None:
        self._nodes = nodes
        self._count = len(servers)
        self._points, self._owners = _stand(tuple(servers), virtual)

    def chain(self, table: str, shard: int, replicas: int = 0) -> list[int]:
        """The servers of a shard, head first: up to ``1 + replicas`` of them."""
        length = min(1 + replicas, self._count)
        start = bisect.bisect_right(self._points, _place(f"{table}/{shard}"))
        if length == 1:
            return [self._owners[start % len(self._owners)]]
        order = list(dict.fromkeys(self._owners[(start + i) % len(self._owners)] for i in range(len(self._owners))))
        apart: dict[int, int] = {}
        for server in order:
            apart.setdefault(self._nodes[server], server)
        elsewhere = list(apart.values())
        return (elsewhere + [server for server in order if server not in elsewhere])[:length]

    def head(self, table: str, shard: int) -> int:
        """The server that takes the pushes of a shard."""
        return self.chain(table, shard)[0]
