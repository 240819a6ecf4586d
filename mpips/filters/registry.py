"""Filters by name, as the job file has them: ``{name = "quantise", bytes = 2}``."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from mpips.errors import Error
from mpips.filters.base import Direction, Filter, Setting
from mpips.schema import mistakes, nearest

FilterClass = TypeVar("FilterClass", bound=type[Filter[Any]])

FILTERS: dict[str, type[Filter[Any]]] = {}


class FilterError(Error, ValueError):
    """A filter that does not exist or can't work where it is named, or parameters that it does not have."""


def register(name: str) -> Callable[[FilterClass], FilterClass]:
    """Register a class as the filter of this name.

    Examples
    --------
    >>> @mpips.filters.register("clip")
    ... class Clip(mpips.filters.Filter):
    ...     class Parameters(msgspec.Struct, frozen=True):
    ...         limit: float = 1.0
    ...
    ...     def encode(self, packet):
    ...         return packet._replace(values=packet.values.clip(-self.parameters.limit, self.parameters.limit))
    ...
    ...     def decode(self, packet):
    ...         return packet
    """

    def add(kind: FilterClass) -> FilterClass:
        kind.name = name
        FILTERS[name] = kind
        return kind

    return add


def _kind(spec: dict[str, Any]) -> type[Filter[Any]]:
    name = spec.get("name")
    if not isinstance(name, str) or name not in FILTERS:
        raise FilterError(f'filter "{name}" does not exist; {nearest(str(name), FILTERS)}')
    return FILTERS[name]


def make(spec: dict[str, Any], setting: Setting) -> Filter[Any]:
    """The filter of ``{"name": …, parameter: value, …}``.

    Raises
    ------
    FilterError
        when the filter or a parameter does not exist, or a parameter has a wrong value.
    """
    kind = _kind(spec)
    values = {key: value for key, value in spec.items() if key != "name"}
    for mistake in mistakes(kind.Parameters, values):
        place = f": {mistake.place}" if mistake.path else ""
        raise FilterError(f'filter "{spec["name"]}"{place}: {mistake.text}')
    return kind(msgspec.convert(values, kind.Parameters), setting)


def stack(specs: Sequence[dict[str, Any]], setting: Setting) -> list[Filter[Any]]:
    """The filters of these that work in the setting's direction, in their order.

    A pull has two chains, "request" and "pull", made of the same specifications: each takes its own of them.

    Raises
    ------
    FilterError
        as `make`, and when one can't work in this direction, or can't read what one before it has hidden.
    """
    asked: Direction = setting.direction
    way = ("push",) if asked == "push" else ("pull", "request")
    filters: list[Filter[Any]] = []
    hidden_by: dict[str, str] = {}
    for spec in specs:
        filter_ = make(spec, setting)
        if not set(way) & set(filter_.directions):
            raise FilterError(f'filter "{spec["name"]}" does not work on a {way[0]}; remove it there')
        if asked not in filter_.directions:
            continue
        for part in filter_.reads:
            if part in hidden_by:
                raise FilterError(
                    f'filter "{spec["name"]}" must come before "{hidden_by[part]}", after which there are no {part} to '
                    "read"
                )
        filters.append(filter_)
        hidden_by.update(dict.fromkeys(filter_.hides, spec["name"]))
    return filters
