"""The filters that a table's specification asks for."""

from typing import Literal

from mpips.filters.base import Direction, Setting
from mpips.filters.chain import Chain
from mpips.filters.kkt import Kkt
from mpips.filters.registry import make
from mpips.table import TableSpec


def chain_of(spec: TableSpec, direction: Direction, near: bool, stream: int) -> Chain:
    """The chain between a worker and a server.

    The KKT filter is not in it: what it knows is the same for all servers, so a worker's table has one, see `kkt_of`.

    Parameters
    ----------
    near : whether the two are on one node.
    stream : a number of this pair.
    """
    push = direction == "push"
    specs = [each for each in spec.push_filters if each.get("name") != Kkt.name] if push else spec.pull_filters
    width = spec.push_width if push else spec.width
    return Chain(specs, direction, width, spec.dtype, spec.rows, near, stream)


def kkt_of(spec: TableSpec) -> Kkt | None:
    """The KKT filter of a table's pushes, if it has one."""
    for each in spec.push_filters:
        if each.get("name") == Kkt.name:
            made = make(each, Setting("push", spec.push_width, spec.dtype, spec.rows))
            assert isinstance(made, Kkt)
            return made
    return None


def check(spec: TableSpec, direction: Literal["push", "pull"]) -> None:
    """See whether the filters of a table's pushes or pulls exist and fit together.

    Raises
    ------
    FilterError
        when they don't.
    """
    if direction == "push":
        kkt_of(spec)
    else:
        chain_of(spec, "request", near=False, stream=0)
    chain_of(spec, direction, near=False, stream=0)
