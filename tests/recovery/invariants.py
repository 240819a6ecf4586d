"""What must hold of a simulated job in which ranks die: of its servers at rest, of its log, of its end; in words where
it does not.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mpips.checkpoint import Generation
from mpips.server.server import Server
from mpips.server.shards import Shards
from mpips.views.chains import chains_of
from mpips.views.view import MAIN, View
from tests.simulated import SimulatedJob

Array = np.ndarray[Any, Any]

STAGES = ["detected", "view", "acknowledged", "whole"]
BEYOND = (
    "no copy is left",
    "no server is left",
    "no worker is left",
    "no whole team of workers is left",
    "no spare is left to run its program again",
    "(scheduler) died",
)  # reasons for which a job may have to end


def servers_of(job: SimulatedJob, view: View) -> dict[int, Server]:
    """The servers of a view."""
    return {rank: server for rank in view.servers if (server := job.ranks[rank]._server) is not None}


# --- generations ----------------------------------------------------------------------------------------------------


def done_of(progress: dict[str, Any]) -> int:
    """Batches that a generation calls done, of epochs that are not over."""
    parts = [part for parts in progress["done"].values() for part in parts]
    return sum(int(np.unpackbits(np.frombuffer(bytes.fromhex(part), np.uint8)).sum()) for part in parts)


def of_cut(path: Path, train: int) -> list[str]:
    """Of a generation that is a cut, of a job that counts the examples that it has trained on, in batches of 4, with
    `train` of them an epoch: that it has those of the workloads that it calls done, and no others.
    """
    with Generation(path) as generation:
        generation.verify(deep=True)
        progress, counted = generation.progress, int(generation.dense("rows", 0, 1)[0][0, 0])
    due = progress["epochs"] * train + 4 * done_of(progress)
    if counted == due == progress["examples"]:
        return []
    return [f"{path.name} has {counted} examples, not {due}, or says {progress['examples']}"]


# --- at rest --------------------------------------------------------------------------------------------------------


def restless(job: SimulatedJob, view: View, living: list[int], gone: set[int]) -> str:
    """Why something is still to come; empty when nothing is."""
    if set(view.lost) != gone:
        return f"ranks {sorted(gone)} are gone, the view has {view.lost}"
    for rank in living:
        if job.ranks[rank].view.number != view.number:
            return f"rank {rank} does not have view {view.number}"
        if job.ranks[rank]._exchanges.unread:
            return f"rank {rank} has given what is not read"
    if view.ring != view.target:
        return f"copies are on their way from {view.ring} to {view.target}"
    desk = job.ranks[view.scheduler]._desk
    assert desk is not None
    lost = {loss.rank: loss.missing for loss in desk.replica.scheduler._losses._open}
    if lost:
        return f"of lost ranks something is missing: {lost}"
    if desk.replica.scheduler._saving.missing is not None:
        return "a generation is being written"
    for rank, server in servers_of(job, view).items():
        replication = server._replication
        if not replication.is_idle:
            return f"server {rank} has changes or copies under way"
        unfinished = [key for key, task in server._received._open.items() if key[0] in living and task.parts]
        if unfinished:
            return f"server {rank} has tasks open: {unfinished}"
        for shards in server.tables:
            places = {shard for shard, chain in enumerate(chains_of(view, shards.spec).chains) if rank in chain.servers}
            if set(shards.held) != places:
                return f'server {rank} holds shards of "{shards.spec.name}" that are not its own, or not all of those'
    return ""


def content(shards: Shards, shard: int) -> tuple[Array, Array, Array]:
    """Keys, values and state of a shard, in order of keys."""
    if shards.spec.kind == "dense":
        lo, hi = shards.spec.shard_range(shard)
        values, state = shards.dense_rows(shard)
        return np.arange(lo, hi), values, state
    keys, values, state = shards.rows(shard)
    order = np.argsort(keys)
    return keys[order].astype(np.int64), values[order], state[order]


def values(job: SimulatedJob, view: View) -> dict[str, Array]:
    """The values of every table as the heads of its shards have them, by name; of sparse tables those of the keys that
    they were made for.
    """
    servers = servers_of(job, view)
    found = {}
    for table, shards in enumerate(next(iter(servers.values())).tables):
        spec = shards.spec
        whole = found[spec.name] = np.zeros((spec.rows, spec.width), spec.dtype)
        for shard, head in enumerate(chains_of(view, spec).heads.tolist()):
            if head in servers:
                keys, rows, _ = content(servers[head].tables[table], shard)
                whole[keys] = rows
    return found


def of_copies(job: SimulatedJob, view: View, living: list[int]) -> Iterator[str]:
    """At rest: every shard is where the view has it, all copies are alike, and nothing is left open."""
    servers = servers_of(job, view)
    for table, shards in enumerate(next(iter(servers.values())).tables):
        spec = shards.spec
        for shard, chain in enumerate(chains_of(view, spec).chains):
            where = f'shard {shard} of "{spec.name}", chain {chain.servers}'
            if len(chain.servers) != min(view.replicas + 1, len(view.servers)) or chain.copies != len(chain.servers):
                yield f"{where}: it should have {view.replicas} replicas"
            if not all(rank in servers and rank in living for rank in chain.servers):
                yield f"{where}: not all of them live, and are servers"
                continue
            yield from _unlike(servers, table, shard, chain.servers, where)
    for rank, server in servers.items():
        yield from _left_open(job, server, rank)


def _unlike(servers: dict[int, Server], table: int, shard: int, chain: Iterable[int], where: str) -> Iterator[str]:
    head, *others = chain
    first = servers[head]._replication.tables[table]
    if first.paths[shard] or shard not in first.shards.led:
        yield f"{where}: server {head} does not lead it"
    due = content(first.shards, shard)
    for rank in others:
        copies = servers[rank]._replication.tables[table]
        for what, mine, its in zip(("keys", "values", "state"), due, content(copies.shards, shard), strict=True):
            if not np.array_equal(mine, its):
                yield f"{where}: {what} at {rank} are others than at {head}"
        if copies.shards.numbers[shard] != first.shards.numbers[shard]:
            yield f"{where}: number {copies.shards.numbers[shard]} at {rank}, {first.shards.numbers[shard]} at {head}"


def of_clocks(job: SimulatedJob, view: View, due: dict[int, dict[int, Array]]) -> Iterator[str]:
    """At rest: every copy knows of every push that has changed it, by table and identity, at each position."""
    for rank, server in servers_of(job, view).items():
        for table, copies in enumerate(server._replication.tables):
            spec = copies.shards.spec
            known: dict[Any, dict[int, Array]] = {}  # by path and identity
            for shard in copies.shards.held:
                path, (lo, hi) = copies.paths[shard], copies.positions(shard)
                if path not in known:
                    known[path] = {}
                    for identity, first, last, step in copies.clock(path).entries():
                        known[path].setdefault(identity, np.zeros(spec.positions, np.int64))[first:last] = step
                for identity, steps in due.get(table, {}).items():
                    knows = known[path].get(identity, np.zeros(spec.positions, np.int64))
                    if (knows[lo:hi] < steps[lo:hi]).any():
                        yield (
                            f'shard {shard} of "{spec.name}" at {rank}: of worker {identity} the clock knows steps '
                            f"{knows[lo:hi].tolist()}, it must know {steps[lo:hi].tolist()}"
                        )


def _left_open(job: SimulatedJob, server: Server, rank: int) -> Iterator[str]:
    if server._answers.waiting():
        yield f"server {rank} has answers that nobody takes: {server._answers.waiting()}"
    if server._gate.waiting():
        yield f"server {rank} holds pushes up, or has messages of later views: {server._gate.waiting()}"
    if any(aggregate.waiting() for aggregate in server._aggregators.values()):
        yield f"server {rank} waits for pushes: {[each.waiting() for each in server._aggregators.values()]}"
    this = job.ranks[rank]
    if this._data_server is None and this._worker is None:
        space, shards = this._fabric.space, sum(len(table.held) for table in server.tables)
        stretches = len(space._taken) - len(space._given_back)
        if stretches != shards:
            yield f"server {rank} has {stretches - shards} stretches of its arena too many"


# --- the log --------------------------------------------------------------------------------------------------------


def of_events(events: list[dict[str, Any]], gone: Iterable[int]) -> Iterator[str]:
    """Every event is written once, and every recovery goes through its stages in their order."""
    numbers = [event["number"] for event in events if "number" in event]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"events are numbered {numbers}"
    kinds = Counter(event["event"] for event in events)
    if kinds["end"] != 1:
        yield f"{kinds['end']} events say that the job ends"
    stages: dict[int, list[str]] = {}
    ranks = Counter[int]()
    for event in events:
        if event["event"] == "recovery":
            stages.setdefault(event["recovery"], []).append(event["stage"])
            ranks[event["rank"]] += event["stage"] == "detected"
    for recovery, its in stages.items():
        if its != [stage for stage in STAGES if stage in its]:
            yield f"recovery {recovery} has the stages {its}"
    if ranks - Counter(list(gone)):
        yield f"there are recoveries of {dict(ranks)}, ranks {sorted(gone)} are gone"


# --- the end --------------------------------------------------------------------------------------------------------


def beyond(reason: str) -> str:
    """The kind of a reason for which a job may have to end; empty for any other."""
    return next((kind for kind in BEYOND if kind in reason), "")


def of_ends(
    kind: str,
    reason: str,
    job: SimulatedJob,
    view: View,
    living: list[int],
    gone: dict[int, float],
    patience: float,
) -> Iterator[str]:
    """That more is dead than the job has others for is true when it is said."""
    servers = servers_of(job, view)
    match kind:
        case "no copy is left":
            tables = max((len(server.tables) for server in servers.values()), default=0)
            if tables and all(_whole(servers, view, living, table) for table in range(tables)):
                yield f"{reason}: but there is a copy of every shard"
        case "no server is left":
            fit = [rank for rank in living if job.ranks[rank]._desk is None]  # a successor is nothing else
            if any(rank in fit for rank in (*view.servers, *view.spares)):
                yield f"{reason}: but there is one, or a spare"
        case "no worker is left":
            spares = view.spares if job.plan.on_worker_loss == "replace" else []
            if any(rank in living for rank in (*view.groups[MAIN], *spares)):
                yield f"{reason}: but there is one, or a spare"
        case "no whole team of workers is left":
            spares = view.spares if job.plan.on_worker_loss == "replace" else []
            if any(set(team) <= {*living, *spares} for team in view.teams) or set(spares) & set(living):
                yield f"{reason}: but there is one, or a spare"
        case "no spare is left to run its program again":
            idle = {rank for rank in living if view.role(rank) == "spare"}
            if idle & set(view.spares) or (idle and view.ring == view.target):  # else they may have parts of copies
                yield f"{reason}: but there is {idle}"
        case "(scheduler) died":
            died = gone.get(view.scheduler, math.inf)
            others = [at for rank, at in gone.items() if rank != view.scheduler]
            if view.standbys and not any(abs(at - died) <= patience for at in others):
                yield f"{reason}: but no standby was gone at {died}: {gone}"
        case _:
            yield f"the job ended: {reason}"


def _whole(servers: dict[int, Server], view: View, living: list[int], table: int) -> bool:
    """Whether a server that is known to have it lives for every shard of a table."""
    spec = next(server for server in servers.values() if server.tables).tables[table].spec
    return all(set(chain.servers[: chain.copies]) & set(living) for chain in chains_of(view, spec).chains)
