"""Consistent hashing: every server stands at many points of a ring, a shard belongs to the next one clockwise.

Li et al. 2014, section 4.3. Many virtual servers for each real one balance the load and let the shards of a server that
leaves spread over all others; only the share of a server that joins has to move.
"""

import bisect
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

VIRTUAL_SERVERS = 128


def _point(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=8)
def _stand(places: tuple[int, ...], virtual: int) -> tuple[list[int], list[int]]:
    """Where the virtual servers stand, in order, and of which place each is."""
    points = sorted((_point(f"server {place}/{i}"), place) for place in places for i in range(virtual))
    return [point for point, _ in points], [place for _, place in points]


class Ring:
    """A ring of servers.

    Parameters
    ----------
    servers : rank of the server at each place. A place stays where it is when another rank takes it.
    nodes : node of every rank; the servers of a chain stand on different nodes while there are any left.
    virtual : virtual servers for each place.
    """

    def __init__(self, servers: Mapping[int, int], nodes: Sequence[int], virtual: int = VIRTUAL_SERVERS) -> None:
        self._servers = servers
        self._nodes = nodes
        self._points, self._places = _stand(tuple(sorted(servers)), virtual)

    def chain(self, table: str, shard: int, replicas: int = 0) -> list[int]:
        """The servers of a shard, head first: up to ``1 + replicas`` of them."""
        length = min(1 + replicas, len(self._servers))
        start = bisect.bisect_right(self._points, _point(f"{table}/{shard}"))
        if length == 1:
            return [self._servers[self._places[start % len(self._places)]]]
        met, nodes, apart, others = set[int](), set[int](), list[int](), list[int]()
        at = start
        while len(apart) < length and len(met) < len(self._servers):
            place = self._places[at % len(self._places)]
            at += 1
            if place in met:
                continue
            met.add(place)
            server = self._servers[place]
            node = self._nodes[server]
            (others if node in nodes else apart).append(server)
            nodes.add(node)
        return (apart + others)[:length]

    def head(self, table: str, shard: int) -> int:
        """The server that takes the pushes of a shard."""
        return self.chain(table, shard)[0]
