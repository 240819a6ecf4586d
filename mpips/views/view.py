"""The view: the numbered membership of the job, who does what and on which node."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from mpips.errors import Error

Count = Annotated[int, msgspec.Meta(ge=0)]
FEWEST_RANKS = 3
MAIN = "train"  # the group of workers that runs the job's algorithm or program


class RolesError(Error, ValueError):
    """The roles asked for do not fit the number of ranks."""


class Roles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many ranks take each role; None leaves the choice to `assign`.

    ``data_servers = 0`` has the scheduler's rank serve the data as well.
    """

    servers: Annotated[int, msgspec.Meta(ge=1)] | None = None
    data_servers: Count | None = None
    workers: Annotated[int, msgspec.Meta(ge=1)] | None = None
    spares: Count | None = None

    def total(self) -> int | None:
        """Ranks that these roles take with the scheduler, or None when a count is left open."""
        if self.servers is None or self.workers is None or self.data_servers is None:
            return None
        return 1 + self.servers + self.data_servers + self.workers + (self.spares or 0)


class NoSuchGroup(Error, KeyError):
    """A group of ranks that the job does not have."""

    __str__ = Exception.__str__


class View(msgspec.Struct, frozen=True):
    """Who does what. A later view has a larger number.

    A server stands at a place of the ring, which a spare may take over from it. Copies of shards move in the background
    from where `ring` has them to where `target` does; when all are there, that becomes the ring. Until then a dead
    server stays in `ring`, since its chains tell where the other copies are.

    Parameters
    ----------
    number : of this view.
    nodes : node number of every rank.
    scheduler : its rank.
    standbys : ranks that mirror the scheduler's log; the first that lives follows it.
    ring, target : servers by their place on the ring, as copies are, and as they will be.
    parts : the rank that serves each part of the data.
    groups : the ranks of each group of workers, by their place in it.
    identities : the number under which each of these places pushes: the rank of the worker that had it first; or, if
        that had been one before, a number that no rank has.
    spares : ranks that wait for a role.
    lost : ranks that are dead, or were sent away.
    replicas : copies of a shard besides the one at its head, as far as there are servers for them.
    since : the number of the view in which each of the groups' places got its rank.
    team : workers of the main group that have a copy of the model together, next to each other in it.
    """

    number: int
    nodes: list[int]
    scheduler: int
    standbys: list[int]
    ring: dict[int, int]
    target: dict[int, int]
    parts: list[int]
    groups: dict[str, list[int]]
    identities: dict[str, list[int]]
    spares: list[int]
    lost: list[int]
    replicas: int
    since: dict[str, list[int]]
    team: int = 1

    @property
    def servers(self) -> list[int]:
        """Living servers, those that only copy shards for now included."""
        return sorted({*self.ring.values(), *self.target.values()} - set(self.lost))

    @property
    def data_servers(self) -> list[int]:
        """Ranks that serve data."""
        return sorted(set(self.parts))

    @property
    def workers(self) -> list[int]:
        """Workers of all groups."""
        return sorted(rank for ranks in self.groups.values() for rank in ranks)

    def group(self, name: str) -> list[int]:
        """The ranks of a role ("servers", "data_servers", "workers", "spares") or of a group of workers.

        Raises
        ------
        NoSuchGroup
            when there is none of this name.
        """
        roles = {
            "servers": self.servers,
            "data_servers": self.data_servers,
            "workers": self.workers,
            "spares": self.spares,
        }
        ranks = self.groups | roles
        if name not in ranks:
            raise NoSuchGroup(f'there is no group "{name}"; there are: {", ".join(ranks)}')
        return ranks[name]

    def group_of(self, worker: int) -> str:
        """The name of the group that a worker belongs to."""
        return next(name for name, ranks in self.groups.items() if worker in ranks)

    def team_of(self, worker: int) -> list[int]:
        """The workers that have a copy of the model together, one of which is this: of a group besides the main one, it
        alone. The first of them leads: it asks for work. None when it is no worker.
        """
        alone = [worker] if worker in self.workers else []
        return next((team for team in self.teams if worker in team), alone)

    def era_of(self, team: list[int]) -> int:
        """The number of the view since which these workers of the main group are a team."""
        workers, since = self.groups[MAIN], self.since[MAIN]
        return max((since[workers.index(worker)] for worker in team if worker in workers), default=0)

    @property
    def teams(self) -> list[list[int]]:
        """Those of the main group."""
        workers = self.groups[MAIN]
        return [workers[first : first + self.team] for first in range(0, len(workers), self.team)]

    def role(self, rank: int) -> str:
        """The role of a rank: "scheduler", "server", "data server", "worker", "spare", or "lost"."""
        if rank == self.scheduler:
            return "scheduler"
        if rank in self.lost:
            return "lost"
        for name, ranks in (("server", self.servers), ("data server", self.data_servers), ("worker", self.workers)):
            if rank in ranks:
                return name
        return "spare"

    def counts(self) -> dict[str, int]:
        """Number of ranks in each role."""
        return {
            "scheduler": 1,
            "servers": len(self.servers),
            "data_servers": len([rank for rank in self.data_servers if rank != self.scheduler]),
            "workers": len(self.workers),
            "spares": len(self.spares),
        }


def complete(roles: Roles, ranks: int, others: int = 0, team: int = 1) -> Roles:
    """Fill in the roles left open for a job of so many ranks.

    About a quarter of the ranks serve parameters, an eighth serve data, the rest work; ranks beyond roles that are all
    given are spares. `others` are the workers of other groups than the main one; those of the main one come in teams.

    Raises
    ------
    RolesError
        when there are fewer ranks than roles, or fewer than 3, or the workers given make no whole teams.
    """
    if ranks < FEWEST_RANKS:
        raise RolesError(
            f"a job needs at least {FEWEST_RANKS} ranks, got {ranks}: start it with -n {FEWEST_RANKS} or more"
        )
    spares = roles.spares or 0
    free = ranks - 1 - spares - others
    data_servers = roles.data_servers
    if data_servers is None:
        room = free - (roles.servers or 1) - (roles.workers or 1)
        data_servers = min(max(1, ranks // 8), max(0, room))
    servers = roles.servers
    if servers is None:
        servers = max(1, min((free - data_servers) // 3, free - data_servers - (roles.workers or 1)))
    workers = roles.workers
    if workers is None:
        workers = max(1, (free - data_servers - servers) // team) * team
    if workers % team:
        raise RolesError(f"the network is in {team} partitions: {workers} workers are no whole teams of {team}")
    total = 1 + servers + data_servers + workers + spares + others
    if total > ranks:
        raise RolesError(
            f"the roles need {total} ranks (1 scheduler, {servers} servers, {data_servers} data servers, "
            f"{workers + others} workers, {spares} spares), the job has {ranks}: start more ranks or lower [roles]"
        )
    return Roles(servers=servers, data_servers=data_servers, workers=workers, spares=ranks - total + spares)


def assign(
    nodes: Sequence[int], wanted: Roles, groups: Mapping[str, int] | None = None, replicas: int = 0, team: int = 1
) -> View:
    """The first view of a job: a role for every rank, servers spread over the nodes first; spares have a node of their
    own when there are enough of them for one, and of nodes for the copies.

    Parameters
    ----------
    nodes : node number of every rank; rank 0 becomes the scheduler.
    wanted : how many ranks take each role.
    groups : workers of each group besides the main one.
    replicas : copies of a shard besides the first.
    team : workers of the main group that have a copy of the model together.

    Raises
    ------
    RolesError
        when the ranks are too few, or the workers make no whole teams.
    """
    groups = groups or {}
    roles = complete(wanted, len(nodes), sum(groups.values()), team)
    free: dict[int, list[int]] = {}
    for rank, node in enumerate(nodes):
        if rank > 0:
            free.setdefault(node, []).append(rank)
    whole = [node for node, ranks in free.items() if node != nodes[0] and len(ranks) <= (roles.spares or 0)]
    if whole and len(free) > replicas + 1:
        del free[max(whole, key=lambda node: (len(free[node]), node))]

    def take(count: int) -> list[int]:
        taken: dict[int, int] = dict.fromkeys(free, 0)
        ranks = []
        for _ in range(count):
            node = min((n for n in free if free[n]), key=lambda n: (taken[n], -len(free[n]), n))
            taken[node] += 1
            ranks.append(free[node].pop(0))
        return sorted(ranks)

    servers = take(roles.servers or 0)
    data_servers = take(roles.data_servers or 0) or [0]
    members = {MAIN: take(roles.workers or 0), **{name: take(count) for name, count in groups.items()}}
    active = {0, *servers, *data_servers, *(rank for ranks in members.values() for rank in ranks)}
    spares = [rank for rank in range(len(nodes)) if rank not in active]
    ring = {server: server for server in servers}
    return View(
        number=1,
        nodes=list(nodes),
        scheduler=0,
        standbys=[],
        ring=ring,
        target=dict(ring),
        parts=data_servers,
        groups=members,
        identities={name: list(ranks) for name, ranks in members.items()},
        spares=spares,
        lost=[],
        replicas=replicas,
        since={name: [1] * len(ranks) for name, ranks in members.items()},
        team=team,
    )
