"""Whole generations of random tables, written by any number of servers."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpips.checkpoint.master import write_master
from mpips.checkpoint.write import ServerFile
from mpips.table import TableSpec


class Content(NamedTuple):
    """What a table holds: keys (sparse: in no order), values, state."""

    keys: np.ndarray
    values: np.ndarray
    state: np.ndarray


def random_content(table: TableSpec, rng: np.random.Generator) -> Content:
    rows = table.rows
    keys = np.arange(rows, dtype=np.uint64)
    if table.kind == "sparse":
        keys = rng.permutation(np.arange(rows, dtype=np.uint64) * np.uint64(2**64 // (rows + 1)) + np.uint64(3))
    values = rng.standard_normal((rows, table.width)).astype(table.dtype)
    state = rng.standard_normal((rows, table.width, table.slots)).astype(table.dtype)
    return Content(keys, values, state)


def write_servers(run: Path, generation: int, tables: dict, owners: dict, clocks: dict | None = None) -> list[int]:
    """Write every server's file; `tables` is name → (spec, content), `owners` name → rank of each shard."""
    ranks = sorted({int(rank) for owner in owners.values() for rank in owner if rank >= 0})
    for rank in ranks:
        file = ServerFile(run, generation, rank)
        for name, (table, content) in tables.items():
            shard_of = content.keys % np.uint64(table.shards)
            for shard in np.flatnonzero(owners[name] == rank):
                if table.kind == "dense":
                    lo, hi = table.shard_range(int(shard))
                    file.dense(table, int(shard), content.values[lo:hi], content.state[lo:hi])
                else:
                    mine = shard_of == shard
                    file.sparse(table, int(shard), content.keys[mine], content.values[mine], content.state[mine])
        file.clocks((clocks or {}).get(rank, {}))
        file.close()
    return ranks


def write_generation(run: Path, generation: int, tables: dict, servers: int = 2, seed: int = 0, **rest) -> Path:
    """Write a complete generation with its shards on random servers, whose ranks start at 1."""
    rng = np.random.default_rng(seed)
    owners = {name: rng.integers(1, servers + 1, table.shards) for name, (table, _) in tables.items()}
    ranks = write_servers(run, generation, tables, owners, rest.pop("clocks", None))
    rest = {"job": "the job", "progress": {"epoch": generation}} | rest
    return write_master(run, generation, ranks, [table for table, _ in tables.values()], **rest)


def small_tables(seed: int = 0) -> dict:
    """A dense table of 20 shards and a sparse one of 16."""
    rng = np.random.default_rng(seed)
    specs = [
        TableSpec(name="w", rows=40_000, rule={"name": "ftrl", "alpha": 0.1}, slots=2),
        TableSpec(name="c", kind="sparse", rows=3_000, width=2, dtype="float64", rule={"name": "add"}),
    ]
    return {spec.name: (spec, random_content(spec, rng)) for spec in specs}


def in_order(keys, *arrays):
    """The arrays in ascending order of the keys, keys first."""
    order = np.argsort(keys)
    return [keys[order], *(array[order] for array in arrays)]
