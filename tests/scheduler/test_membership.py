"""From deaths and wishes to views: who takes whose place, when copies are settled, and when a job can't go on."""

import pytest

from mpips.messages import Drain, NewView, Release
from mpips.plan import Plan
from mpips.scheduler.membership import BeyondRedundancy, CannotScale, Membership
from mpips.table import TableSpec
from mpips.views.chains import chains_of
from mpips.views.view import Roles, RolesError, assign

TABLE = TableSpec(name="w", rows=100_000)


def membership(servers=3, workers=2, spares=2, replicas=1, nodes=None, program=True, watch=0, **settings):
    roles = Roles(servers=servers, data_servers=0 if program else 1, workers=workers, spares=spares)
    ranks = 1 + servers + workers + spares + watch + (not program)
    data = {} if program else {"data": object()}
    plan = Plan(program=print, tables=lambda _: [TABLE], roles=roles, replicas=replicas, **data, **settings)
    groups = {"watch": watch} if watch else None
    found = Membership(assign(nodes or [0] * ranks, roles, groups, replicas, plan.team), plan)
    found.tables = [TABLE]
    return found


def heads(view):
    return set(chains_of(view, TABLE).heads.tolist())


def tell(found, kind):
    """Those that were sent a message of a type since the last look."""
    told = [rank for rank, message in found.messages if isinstance(message, kind)]
    found.messages = [(rank, message) for rank, message in found.messages if not isinstance(message, kind)]
    return told


def settle(found):
    """Have the servers copy, rest, and all ranks take the views, until nothing changes."""
    for _ in range(4):
        for server in found.view.servers:
            found.copies_whole(server, found.view.number)
        for server in found.view.servers:
            found.drained(server, found.view.number)
        for rank in range(len(found.view.nodes)):
            if rank not in found.view.lost:
                found.taken(rank, found.view.number)


def test_a_spare_takes_the_place_of_a_dead_server_and_heads_its_shards_when_it_has_copies():
    found = membership()
    dead = found.view.servers[0]
    before = chains_of(found.view, TABLE).heads.copy()
    assert "takes its place" in found.lost(dead)
    spare = found.view.target[dead]
    assert dead not in heads(found.view)
    assert spare not in heads(found.view)  # it has no copy yet
    assert not found.settled
    settle(found)
    assert found.settled
    after = chains_of(found.view, TABLE).heads
    assert (after[before == dead] == spare).all()
    assert (after[before != dead] == before[before != dead]).all()


def test_pushes_rest_before_a_shard_gets_another_head_and_shards_are_given_back_after():
    found = membership()
    found.lost(found.view.servers[0])
    assert set(tell(found, NewView)) == set(range(8)) - {found.view.lost[0]}
    for server in found.view.servers:
        found.copies_whole(server, found.view.number)
    assert tell(found, Drain) == found.view.servers
    for server in found.view.servers[:-1]:
        found.drained(server, found.view.number)
    assert not found.settled
    found.drained(found.view.servers[-1], found.view.number)
    assert found.settled
    assert tell(found, Release) == []
    settle(found)
    assert set(tell(found, Release)) >= set(found.view.servers)


def test_without_a_spare_the_others_share_the_load_and_say_so():
    found = membership(spares=0)
    dead = found.view.servers[1]
    assert "no spare is left" in found.lost(dead)
    settle(found)
    assert dead not in found.view.ring
    assert len(found.view.ring) == 2
    assert all(len(chain.servers) == 2 for chain in chains_of(found.view, TABLE).chains)


def test_a_death_while_copies_are_made_is_an_ordinary_case():
    found = membership(servers=4, spares=3)
    first, second = found.view.servers[:2]
    found.lost(first)
    spare = found.view.target[first]
    assert "takes its place" in found.lost(spare)
    assert found.view.target[first] not in (first, spare)
    settle(found)
    found.lost(second)
    settle(found)
    assert found.settled
    assert len(found.view.servers) == 4


@pytest.mark.parametrize(("replicas", "most"), [(0, 0), (1, 1), (2, 2)])
def test_so_many_servers_may_die_at_once_as_there_are_replicas(replicas, most):
    found = membership(servers=4, spares=4, replicas=replicas)
    for server in found.view.servers[:most]:
        found.lost(server)
    others = [rank for rank in found.view.ring.values() if rank not in found.view.lost]
    with pytest.raises(BeyondRedundancy, match='no copy is left of some shards of table "w"'):
        [found.lost(server) for server in others]


def test_what_is_said_of_an_older_view_counts_for_nothing():
    found = membership()
    found.lost(found.view.servers[0])
    old = found.view.number
    found.lost(found.view.spares[0])
    for server in found.view.servers:
        found.copies_whole(server, old)
    assert tell(found, Drain) == []


def test_a_place_of_a_program_goes_to_a_spare_under_its_identity():
    found = membership()
    first, second = found.view.groups["train"]
    found.lost(first)
    spare = found.view.groups["train"][0]
    assert spare in (6, 7)
    assert found.view.identities["train"] == [first, second]
    found.lost(spare)
    with pytest.raises(BeyondRedundancy, match="no spare is left to run its program again"):
        found.lost(found.view.groups["train"][0])


def test_batches_that_are_handed_out_need_no_spare():
    found = membership(program=False, spares=0)
    first, second = found.view.groups["train"]
    assert found.lost(first) == "the others do its work"
    assert found.view.groups["train"] == [second]
    with pytest.raises(BeyondRedundancy, match="no worker is left"):
        found.lost(second)


@pytest.mark.parametrize("program", [True, False])
@pytest.mark.parametrize("policy", ["replace", "redistribute", "ignore"])
def test_a_group_besides_the_main_one_goes_on_without_a_worker_that_has_no_spare(program, policy):
    found = membership(program=program, watch=2, spares=0, on_worker_loss=policy)
    first, second = found.view.groups["watch"]
    assert found.can_do_without(first)
    assert found.lost(first) == 'the group "watch" goes on without it'
    assert (found.view.groups["watch"], found.view.identities["watch"]) == ([second], [second])
    assert found.lost(second) == 'the group "watch" is gone'
    assert found.view.groups["watch"] == []
    assert len(found.view.groups["train"]) == 2


@pytest.mark.parametrize(
    ("groups", "settings"),
    [
        ({"train", "watch"}, {}),
        ({"train", "watch"}, {"spares": 0, "servers": 2}),  # one may leave, and is a spare then
        (set(), {"spares": 0}),
        (set(), {"on_worker_loss": "ignore"}),
        (set(), {"on_worker_loss": "redistribute"}),
        ({"train", "watch"}, {"program": False}),
        ({"train"}, {"program": False, "on_worker_loss": "ignore"}),  # a worker may be added
        ({"train", "watch"}, {"program": False, "spares": 0}),  # a worker may leave
        (set(), {"program": False, "spares": 0, "workers": 1}),
    ],
)
def test_a_program_is_begun_anew_by_spares_and_by_who_may_become_one(groups, settings):
    found = membership(watch=1, **{"servers": 1, **settings})
    assert {group for group in ("train", "watch") if found.may_begin_anew(group)} == groups


def test_who_died_last_of_the_spares_leaves_nobody_to_begin_anew():
    found = membership(servers=1, spares=1)
    assert found.may_begin_anew("train")
    found.lost(found.view.spares[0])
    assert not found.may_begin_anew("train")


def test_servers_are_added_from_the_spares_and_leave_to_them():
    found = membership(spares=2)
    assert found.scale(4, None) == "3 to 4 servers"
    assert len(found.view.spares) == 1
    settle(found)
    assert len(heads(found.view)) == 4
    found.scale(2, None)
    assert len(heads(found.view)) == 4  # until there are copies elsewhere
    settle(found)
    assert len(heads(found.view)) == 2
    assert len(found.view.spares) == 3


@pytest.mark.parametrize(
    ("servers", "workers", "why"),
    [(6, None, "there are 2"), (0, None, "needs a server"), (None, 3, "run a program together")],
)
def test_what_a_job_can_not_have_is_refused_and_changes_nothing(servers, workers, why):
    found = membership()
    before = found.view
    with pytest.raises(CannotScale, match=why):
        found.scale(servers, workers)
    assert found.view is before
    assert found.messages == []


def test_a_rank_that_comes_is_a_spare_and_one_that_does_not_leaves_a_gap():
    found = membership(spares=0)
    first = len(found.view.nodes)
    with pytest.raises(CannotScale, match=r"4 servers need 1 spares, there are 0: .* mpips scale RUN spares=\+1$"):
        found.scale(4, None)
    found.add(0, came=False)
    found.add(1, came=True)
    assert found.view.nodes[first:] == [0, 1]
    assert (found.view.spares, found.view.lost) == ([first + 1], [first])
    assert {rank for rank, _ in found.messages} == {*range(first), first + 1}
    assert found.scale(4, None) == "3 to 4 servers"
    assert first + 1 in found.view.servers


# --- teams ------------------------------------------------------------------------------------------------------------


def test_a_spare_takes_the_place_of_a_dead_member_of_a_team():
    found = membership(workers=4, program=False, team=2)
    (first, mate), other = found.view.teams
    spare = found.view.spares[0]
    assert "works in its place" in found.lost(mate)
    assert found.view.teams == [[first, spare], other]
    assert found.view.team_of(spare) == [first, spare]
    eras = [found.view.era_of(team) for team in found.view.teams]
    assert eras == [found.view.number, 1]


@pytest.mark.parametrize("member", [0, 1])
def test_without_a_spare_a_team_is_dissolved_and_who_is_left_of_it_is_a_spare(member):
    found = membership(workers=4, spares=0, program=False, team=2)
    team, other = found.view.teams
    assert "its team is dissolved" in found.lost(team[member])
    assert found.view.teams == [other]
    assert found.view.spares == [team[1 - member]]
    found.lost(other[0])
    assert found.view.teams == [[team[1 - member], other[1]]]
    with pytest.raises(BeyondRedundancy, match="no whole team of workers is left"):
        found.lost(other[1])


def test_workers_come_and_go_in_teams():
    found = membership(workers=2, spares=4, program=False, team=2)
    with pytest.raises(CannotScale, match="3 workers are no whole teams"):
        found.scale(None, 3)
    assert found.scale(None, 6) == "2 to 6 workers"
    assert [len(team) for team in found.view.teams] == [2, 2, 2]
    assert [found.view.era_of(team) for team in found.view.teams] == [1, 2, 2]
    kept = found.view.teams[:2]
    found.scale(None, 4)
    assert found.view.teams == kept


def test_workers_of_no_whole_team_are_refused():
    with pytest.raises(RolesError, match="in 2 partitions: 3 workers are no whole teams of 2"):
        membership(workers=3, program=False, team=2)
