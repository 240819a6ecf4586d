"""What in a job file does not fit together though each value is of its kind: names of things that are not there,
settings that exclude each other, files that can't be read.
"""

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from mpips import rule
from mpips.algorithms.neural.settings import LayerError, NeuralSettings, Shape, shapes_of, weights_of
from mpips.dataserver.errors import DataError
from mpips.dataserver.files import check_readable, find, find_apart
from mpips.dataserver.spec import IMAGES, DataSpec
from mpips.errors import Error
from mpips.program import PROGRAMS, WATCH
from mpips.quantities import from_text
from mpips.scheduler.spec import RecoverySpec
from mpips.schema import Mistake, nearest
from mpips.table import TableSpec
from mpips.views.view import Roles


def misfits(content: dict[str, Any], wrong: set[str | int], base: Path) -> Iterator[Mistake]:
    """All of them.

    Parameters
    ----------
    content : of the file.
    wrong : sections with values that are not of their kind: what depends on these is not looked at.
    base : the folder that paths are relative to.
    """
    yield from _needed(content)
    yield from _names(content)
    yield from _changes(content, wrong)
    yield from _traced(content, wrong)
    yield from _files(base, content, wrong)


def _needed(content: dict[str, Any]) -> Iterator[Mistake]:
    """What one algorithm needs and the other does not take."""
    algorithm, data = content.get("algorithm"), content.get("data")
    if not isinstance(algorithm, dict) or algorithm.get("name") not in ("linear", "neural"):
        return
    neural = algorithm["name"] == "neural"
    if neural:
        for key in ("table", "solver", "block"):
            if key in algorithm:
                yield Mistake(("algorithm", key), 'is for name = "linear": a network makes its own tables')
        if "neural" not in algorithm:
            yield Mistake(("algorithm", "neural"), "is missing; it must be a table, with the layers of the network")
    else:
        if "neural" in algorithm:
            yield Mistake(("algorithm", "neural"), 'is for name = "neural"')
        if "table" not in algorithm:
            yield Mistake(("algorithm", "table"), "is missing; it must be a text")
        if "tables" not in content:
            yield Mistake(("tables",), "is missing; it must be a table")
    images = isinstance(data, dict) and data.get("format") in IMAGES
    if isinstance(data, dict) and images != neural and "format" in data:
        text = "needs images" if neural else "has no use for images"
        yield Mistake(("data", "format"), f'the algorithm "{algorithm["name"]}" {text}')


def _names(content: dict[str, Any]) -> Iterator[Mistake]:
    """Names that must be those of something else in the file, and what a solver asks of its table."""
    tables, algorithm = content.get("tables"), content.get("algorithm")
    if not isinstance(tables, dict) or not isinstance(algorithm, dict):
        return
    table = algorithm.get("table")
    if isinstance(table, str) and table not in tables:
        yield Mistake(("algorithm", "table"), f'there is no table "{table}"; {nearest(table, tables)}')
    section = tables.get(table) if isinstance(table, str) else None
    if not isinstance(table, str) or not isinstance(section, dict):
        return
    rule_name = section["rule"].get("name") if isinstance(section.get("rule"), dict) else "add"
    solver = algorithm.get("solver", "online")
    if solver == "block":
        if rule_name != "proximal":
            yield Mistake(("tables", table, "rule"), f'the solver "block" needs the rule "proximal", got "{rule_name}"')
        if not section.get("aggregate"):
            yield Mistake(("tables", table, "aggregate"), 'the solver "block" needs aggregate = true')
        if section.get("kind", "dense") != "dense":
            yield Mistake(("tables", table, "kind"), 'the solver "block" needs a dense table')
        if "epoch_share" in algorithm:
            yield Mistake(("algorithm", "epoch_share"), 'is for the solver "online": the other looks at all rows')
    elif solver == "online" and "block" in algorithm:
        yield Mistake(("algorithm", "block"), 'is for solver = "block"')
    elif solver == "online" and rule_name == "proximal":
        yield Mistake(("tables", table, "rule"), 'the rule "proximal" is for the solver "block"')


def _changes(content: dict[str, Any], wrong: set[str | int]) -> Iterator[Mistake]:
    """Recovery and changes of size that the rest of the job does not allow."""
    algorithm = content["algorithm"] if "algorithm" in content and "algorithm" not in wrong else {}
    in_step = algorithm.get("solver") == "block"
    if not wrong & {"recovery", "roles"}:
        recovery = msgspec.convert(content.get("recovery", {}), RecoverySpec)
        roles = msgspec.convert(content.get("roles", {}), Roles)
        if recovery.limit is not None and recovery.replicas == 0:
            text = "needs replicas = 1 or more: a silent server is sent away, and with it the only copy of its shards"
            yield Mistake(("recovery", "patience"), text)
        elif recovery.limit is not None and roles.servers == 1:
            text = "needs roles.servers = 2 or more: there is no copy of the shards of a single server"
            yield Mistake(("recovery", "patience"), text)
        if in_step and recovery.on_worker_loss == "redistribute":
            text = 'the solver "block" needs "replace" or "ignore": nobody else has the rows that a worker keeps'
            yield Mistake(("recovery", "on_worker_loss"), text)
    team = algorithm.get("neural", {}).get("partitions", 1)
    if "roles" not in wrong and content.get("roles", {}).get("workers", team) % team:
        text = f"must be a multiple of {team}, the network's partitions; got {content['roles']['workers']}"
        yield Mistake(("roles", "workers"), text)
    for index, entry in enumerate(content.get("plan", []) if "plan" not in wrong else []):
        if entry.get("workers", team) % team:
            text = f"must be a multiple of {team}, the network's partitions; got {entry['workers']}"
            yield Mistake(("plan", index, "workers"), text)
        if in_step and "workers" in entry:
            text = 'is not for the solver "block": its workers keep their rows, and stay as many as they are'
            yield Mistake(("plan", index, "workers"), text)
        if in_step and "epoch" in entry:
            yield Mistake(("plan", index, "epoch"), 'is not for the solver "block", which has no epochs: use at')
        elif algorithm and entry.get("epoch", 1) > algorithm.get("passes", 1):
            text = f"must be at most algorithm.passes, which is {algorithm.get('passes', 1)}; got {entry['epoch']}"
            yield Mistake(("plan", index, "epoch"), text)


def _traced(content: dict[str, Any], wrong: set[str | int]) -> Iterator[Mistake]:
    """Names of features to trace where the data give none."""
    if {"data", "tables"} & wrong or not {"data", "tables"} <= content.keys():
        return
    if msgspec.convert(content["data"], DataSpec, dec_hook=from_text).has_names:
        return
    for name, section in content["tables"].items():
        for index, key in enumerate(section.get("trace", [])):
            if isinstance(key, str):
                text = f'must be a key, a whole number: features of these data have no names; got "{key}"'
                yield Mistake(("tables", name, "trace", index), text)


def _files(base: Path, content: dict[str, Any], wrong: set[str | int]) -> Iterator[Mistake]:
    """The data, the Python file, and the update rules, some of which that may define."""
    if "data" in content and "data" not in wrong:
        data = msgspec.convert(content["data"], DataSpec, dec_hook=from_text)
        of_data = list(_data(base, data))
        yield from of_data
        if data.has_images and not of_data:
            tables = content.get("tables")
            algorithm = {} if "algorithm" in wrong else content.get("algorithm", {})
            yield from _network(base, data, algorithm, tables if isinstance(tables, dict) else ())
    if isinstance(content.get("python"), str):
        trouble = _run_python(base / content["python"])
        if trouble is not None:
            yield Mistake(("python",), trouble)
            return
    tables = content.get("tables")
    for name, section in tables.items() if isinstance(tables, dict) else ():
        if isinstance(section, dict) and isinstance(section.get("rule"), dict):
            try:
                rule.make(section["rule"])
            except rule.RuleError as error:
                yield Mistake(("tables", name, "rule"), str(error))
        if isinstance(section, dict) and (section.get("push_filters") or section.get("pull_filters")):
            yield from _filters(name, section)
    for name, section in content["groups"].items() if isinstance(content.get("groups"), dict) else ():
        program = section.get("program") if isinstance(section, dict) else None
        if isinstance(program, str) and program != WATCH and program not in PROGRAMS:
            yield Mistake(
                ("groups", name, "program"), f'there is no program "{program}"; {nearest(program, [WATCH, *PROGRAMS])}'
            )


def _data(base: Path, data: DataSpec) -> Iterator[Mistake]:
    """Data that are not there, can't be read, or are both trained and tested on."""
    folders, all_there = data.format == "folders", True
    for name in ("files", "test_files"):
        for index, pattern in enumerate(getattr(data, name)):
            try:
                for path in find(pattern, base, folders):
                    if not folders:
                        check_readable(path)
            except DataError as error:
                all_there = False
                yield Mistake(("data", name, index), str(error))
    if all_there:
        try:
            find_apart(data.files, data.test_files, base, folders)
        except DataError as error:
            yield Mistake(("data", "test_files"), str(error))


def _filters(name: str, section: dict[str, Any]) -> Iterator[Mistake]:
    """What is wrong with a table's filters."""
    from mpips.filters.of_table import check  # it takes numba to know them, and most job files have none

    for direction in ("push", "pull"):
        key = f"{direction}_filters"
        given: dict[str, Any] = {key: section.get(key, [])}
        if not (isinstance(given[key], list) and all(isinstance(spec, dict) for spec in given[key])):
            continue  # which is said already
        try:
            table = TableSpec(name=name, rows=1, **given)
            check(rule.fitted(table), direction)
        except Error as error:
            yield Mistake(("tables", name, key), str(error))


def _network(base: Path, data: DataSpec, algorithm: dict[str, Any], tables: Collection[str]) -> Iterator[Mistake]:
    """Images that can't be told, layers that don't fit to each other, and what else a network can't do."""
    from mpips.dataserver.image_files import kind_of

    try:
        kind = kind_of(data, base)
    except DataError as error:
        try:
            kind_of(structs.replace(data, test_files=()), base)
        except DataError as of_training:
            yield Mistake(("data", "files"), str(of_training))
        else:
            yield Mistake(("data", "test_files"), str(error))
        return
    if "neural" not in algorithm:
        return
    settings = msgspec.convert(algorithm["neural"], NeuralSettings)
    passes = algorithm.get("passes", 1)
    if settings.warmup > passes:
        text = f"must be at most algorithm.passes, which is {passes}; got {settings.warmup:g}"
        yield Mistake(("algorithm", "neural", "warmup"), text)
    try:
        shapes = shapes_of(settings.layers, Shape(*kind[:3]), len(kind.classes))
    except LayerError as error:
        own = algorithm["neural"]["layers"][error.index]
        key = (error.key,) if error.key in own else ()
        yield Mistake(("algorithm", "neural", "layers", error.index, *key), str(error))
        return
    names = [weights.name for weights in weights_of(settings.layers, shapes, data.batch)]
    if not names:
        yield Mistake(("algorithm", "neural", "layers"), "has no layer that can learn: convolution or connected")
    for name in names:
        if name in tables:
            yield Mistake(("tables", name), "is the name of a table that the network makes: use another")


def _run_python(path: Path) -> str | None:
    """Run the job's Python file, once in a process: what it defines registers itself. Returns what went wrong."""
    name = "mpips_job_" + re.sub(r"\W", "_", os.path.realpath(path))
    if name in sys.modules:
        return None
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        return f"{path} is not a Python file: its name must end with .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's file may raise anything
        del sys.modules[name]
        if isinstance(error, OSError) and error.filename == str(path):
            return f"{path} can't be read: {error.strerror}"
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = own[-1] if own else getattr(error, "lineno", None)
        return f"{path}:{line}: {type(error).__name__}: {error}"
    return None
