from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpips.views.view import Roles, RolesError, assign, complete

RANKS = st.integers(3, 64)
COUNT = st.one_of(st.none(), st.integers(1, 12))
ROLES = st.builds(
    Roles,
    servers=COUNT,
    data_servers=st.one_of(COUNT, st.just(0)),
    workers=COUNT,
    spares=st.one_of(st.none(), st.integers(0, 9)),
)


def least(roles: Roles) -> int:
    """The fewest ranks that a job with these roles can have."""
    return 1 + (roles.servers or 1) + (roles.data_servers or 0) + (roles.workers or 1) + (roles.spares or 0)


@given(RANKS)
def test_any_number_of_ranks_has_sensible_roles(ranks):
    roles = complete(Roles(), ranks)
    assert roles.total() == ranks
    assert roles.spares == 0
    assert roles.workers >= roles.servers >= 1
    assert roles.workers >= ranks // 3
    assert roles.data_servers >= 1 or ranks == 3


@settings(max_examples=300)
@given(RANKS, ROLES)
@example(4, Roles(workers=2))
@example(4, Roles(servers=2))
@example(4, Roles(servers=1, workers=2))
def test_roles_left_open_are_filled_whenever_the_ranks_suffice(ranks, wanted):
    if least(wanted) > ranks:
        with pytest.raises(RolesError):
            complete(wanted, ranks)
        return
    roles = complete(wanted, ranks)
    assert roles.total() == ranks
    for name in ("servers", "data_servers", "workers"):
        if getattr(wanted, name) is not None:
            assert getattr(roles, name) == getattr(wanted, name)
    assert roles.spares >= (wanted.spares or 0)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 7), min_size=3, max_size=64), ROLES)
def test_every_rank_has_one_role_and_the_view_says_it(nodes, wanted):
    try:
        roles = complete(wanted, len(nodes))
    except RolesError:
        return
    view = assign(nodes, wanted)
    assert Counter(view.role(rank) for rank in range(1, len(nodes))) == Counter(
        {
            name: count
            for name, count in (
                ("server", roles.servers),
                ("data server", roles.data_servers),
                ("worker", roles.workers),
                ("spare", roles.spares),
            )
            if count
        }
    )
    assert view.scheduler == 0
    assert view.role(0) == "scheduler"
    assert view.data_servers == [0] if roles.data_servers == 0 else 0 not in view.data_servers


@given(st.lists(st.integers(0, 7), min_size=3, max_size=64), st.integers(1, 8))
def test_servers_are_spread_over_the_nodes_first(nodes, servers):
    servers = min(servers, len(nodes) - 2)
    view = assign(nodes, Roles(servers=servers, data_servers=0))
    room = Counter(nodes[1:])
    on = Counter(nodes[server] for server in view.servers)
    fullest = max(on.values())
    assert all(on[node] >= min(room[node], fullest - 1) for node in room)


def test_too_few_ranks_say_how_many_are_needed():
    with pytest.raises(RolesError, match="at least 3 ranks, got 2"):
        assign([0, 0], Roles())
    with pytest.raises(
        RolesError, match=r"need 8 ranks \(1 scheduler, 2 servers, 1 data servers, 4 workers, 0 spares\), the job has 5"
    ):
        assign([0] * 5, Roles(servers=2, data_servers=1, workers=4))


def test_ranks_beyond_the_roles_are_spares():
    view = assign([0] * 6, Roles(servers=1, data_servers=1, workers=2))
    assert view.counts() == {"scheduler": 1, "servers": 1, "data_servers": 1, "workers": 2, "spares": 1}
