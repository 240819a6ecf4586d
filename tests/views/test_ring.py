import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.views.ring import Ring

SHARDS = range(400)


def heads(servers, table="w"):
    ring = Ring({server: server for server in servers}, [0] * (max(servers) + 1))
    return [ring.head(table, shard) for shard in SHARDS]


SERVERS = st.sets(st.integers(1, 40), min_size=1, max_size=12).map(sorted)


@settings(max_examples=30)
@given(SERVERS)
def test_every_shard_has_a_head_among_the_servers_and_every_view_agrees(servers):
    assert set(heads(servers)) <= set(servers)
    assert heads(servers) == heads(servers)


@settings(max_examples=30)
@given(SERVERS, st.integers(41, 60))
def test_only_shards_of_the_server_that_joins_move(servers, joining):
    before, after = heads(servers), heads([*servers, joining])
    assert all(new in (old, joining) for old, new in zip(before, after, strict=True))


@settings(max_examples=30)
@given(SERVERS.filter(lambda servers: len(servers) > 1), st.integers(0, 99))
def test_only_shards_of_the_server_that_leaves_move(servers, which):
    leaving = servers[which % len(servers)]
    before, after = heads(servers), heads([s for s in servers if s != leaving])
    assert all(old in (new, leaving) for old, new in zip(before, after, strict=True))


def test_the_shards_of_a_server_that_leaves_spread_over_many_others():
    servers = list(range(1, 11))
    before, after = heads(servers), heads(servers[1:])
    assert len({new for old, new in zip(before, after, strict=True) if old == 1}) >= 6


@pytest.mark.parametrize("servers", [2, 4, 16])
def test_the_load_is_balanced(servers):
    ring = Ring({server: server for server in range(1, servers + 1)}, [0] * (servers + 1))
    counts = np.bincount([ring.head("w", shard) for shard in range(4_000)], minlength=servers + 1)[1:]
    assert counts.max() < 1.35 * counts.mean()
    assert counts.min() > 0.65 * counts.mean()


def test_tables_are_placed_apart():
    assert heads([1, 2, 3], "a") != heads([1, 2, 3], "b")


@settings(max_examples=50)
@given(
    nodes=st.lists(st.integers(0, 5), min_size=41, max_size=41),
    servers=SERVERS,
    replicas=st.integers(0, 6),
    shard=st.integers(0, 999),
)
def test_the_servers_of_a_chain_differ_and_stand_on_different_nodes_while_there_are_any(
    nodes, servers, replicas, shard
):
    ring = Ring({server: server for server in servers}, nodes)
    chain = ring.chain("w", shard, replicas)
    assert chain[0] == ring.head("w", shard)
    assert len(chain) == len(set(chain)) == min(1 + replicas, len(servers))
    assert set(chain) <= set(servers)
    there = len({nodes[server] for server in servers})
    assert len({nodes[server] for server in chain}) == min(len(chain), there)


@settings(max_examples=50)
@given(nodes=st.lists(st.integers(0, 5), min_size=41, max_size=41), servers=SERVERS, shard=st.integers(0, 999))
def test_when_a_head_dies_its_replica_is_the_next_head_when_each_has_its_node(nodes, servers, shard):
    nodes = list(range(41))
    chain = Ring({server: server for server in servers}, nodes).chain("w", shard, 1)
    left = [server for server in servers if server != chain[0]]
    if left:
        assert Ring({server: server for server in left}, nodes).head("w", shard) == chain[1]
