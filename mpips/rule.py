"""Update rules by name: what a server does with a push.

A rule is a NamedTuple of parameters and a numba function of one value, ``step(rule, value, update, state) -> value``,
where `state` is the (slots,) update state of that value, changed in place. A rule may take several inputs for a value:
then a push has as many numbers for each, and `update` is the array of them. Servers run it over arrays; see
`kernels.apply`.
"""

import difflib
from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from mpips.errors import Error
from mpips.table import TableSpec

Step = TypeVar("Step", bound=Callable[..., Any])


class RuleError(Error, ValueError):
    """An update rule that does not exist, or parameters that it does not have."""


class Assign(NamedTuple):
    """The pushed value replaces the old one."""


class Add(NamedTuple):
    """The pushed value is added."""


class Sgd(NamedTuple):
    """Gradient descent: w ← w − rate·(g + l2·w)."""

    rate: float = 0.1
    l2: float = 0.0


class Momentum(NamedTuple):
    """Gradient descent with momentum (Polyak 1964): v ← momentum·v − rate·(g + decay·w); w ← w + v; state v."""

    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 0.0


class Adagrad(NamedTuple):
    """AdaGrad with a proximal step (Duchi et al. 2011): the rate of a value is alpha / (beta + √Σg²)."""

    alpha: float = 0.1
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0


class Ftrl(NamedTuple):
    """FTRL-proximal (McMahan et al. 2013, Algorithm 1); state n = Σg² and z."""

    alpha: float = 0.1
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0


class Proximal(NamedTuple):
    """A step of proximal Newton with a diagonal curvature (Li et al. 2014, Algorithm 3); inputs g and u.

    The value becomes the minimiser of g·(v − w) + u/(2·rate)·(v − w)² + l1·|v| + l2/2·v², no further than the trust
    radius from w, which follows the steps. State: the radius, and by how much the value violated optimality before.
    """

    l1: float = 0.0
    l2: float = 0.0
    rate: float = 1.0
    trust: float = 5.0


class Rule(NamedTuple):
    """A registered rule: its parameters' type, state values kept and numbers pushed for a value, and its function
    (None: built in, see `kernels.apply`).
    """

    parameters: type[Any]
    slots: int
    inputs: int
    step: Callable[..., Any] | None


RULES: dict[str, Rule] = {
    "assign": Rule(Assign, 0, 1, None),
    "add": Rule(Add, 0, 1, None),
    "sgd": Rule(Sgd, 0, 1, None),
    "momentum": Rule(Momentum, 1, 1, None),
    "adagrad": Rule(Adagrad, 1, 1, None),
    "ftrl": Rule(Ftrl, 2, 1, None),
    "proximal": Rule(Proximal, 2, 2, None),
}

BUILT_IN = frozenset(RULES)


def update_rule(parameters: type[Any], slots: int = 0, inputs: int = 1) -> Callable[[Step], Step]:
    """Register a numba function as an update rule under its own name.

    Parameters
    ----------
    parameters : NamedTuple class of float parameters with defaults; the job file's table gives their values.
    slots : state values kept for each value, zero at first.
    inputs : numbers that a push has for each value; with more than one, `update` is an array of them.

    Examples
    --------
    >>> class Nesterov(NamedTuple):
    ...     rate: float = 0.1
    ...     momentum: float = 0.9
    >>> @mpips.update_rule(Nesterov, slots=1)
    ... @numba.njit
    ... def nesterov(rule, value, update, state):
    ...     before = state[0]
    ...     state[0] = rule.momentum * before - rule.rate * update
    ...     return value - rule.momentum * before + (1 + rule.momentum) * state[0]

    Raises
    ------
    RuleError
        when a rule that is built in has its name.
    """

    def register(step: Step) -> Step:
        if step.__name__ in BUILT_IN:
            raise RuleError(f'the update rule "{step.__name__}" is built in: give yours another name')
        # a class of its own: numba tells rules apart by the type of their parameters
        own = namedtuple(step.__name__, parameters._fields, defaults=parameters._field_defaults.values())  # type: ignore[misc]
        RULES[step.__name__] = Rule(own, slots, inputs, step)
        return step

    return register


def _nearest(word: str, words: list[str]) -> str:
    near = difflib.get_close_matches(word, words, 1)
    return f'; did you mean "{near[0]}"?' if near else f"; there are: {', '.join(sorted(words)) or 'none'}"


def make(rule: dict[str, Any]) -> Any:
    """The parameters of ``{"name": …, parameter: value, …}`` as the rule's NamedTuple.

    Raises
    ------
    RuleError
        when the rule or a parameter does not exist, or a parameter is not a number.
    """
    name = rule.get("name")
    if name not in RULES:
        raise RuleError(f'update rule "{name}" does not exist{_nearest(str(name), list(RULES))}')
    parameters = RULES[name].parameters
    values: dict[str, float] = {}
    for key, value in rule.items():
        if key == "name":
            continue
        if key not in parameters._fields:
            raise RuleError(f'update rule "{name}" has no parameter "{key}"{_nearest(key, list(parameters._fields))}')
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RuleError(f'update rule "{name}": {key} must be a number, got {value!r}')
        values[key] = float(value)
    missing = [field for field in parameters._fields if field not in values and field not in parameters._field_defaults]
    if missing:
        raise RuleError(f'update rule "{name}" needs {", ".join(missing)}')
    return parameters(**values)


def check(rule: dict[str, Any], others: dict[str, float]) -> None:
    """See whether parameters may be others for a push to a table of a rule.

    Raises
    ------
    RuleError
        when the rule does not have them, or they are not numbers.
    """
    if others:
        make({**rule, **others})


def fitted(table: TableSpec) -> TableSpec:
    """The table with the state and the inputs that its rule asks for.

    Raises
    ------
    RuleError
        when there is no such rule, or it has no such parameters.
    """
    make(table.rule)
    rule = RULES[table.rule["name"]]
    return msgspec.structs.replace(table, slots=rule.slots, inputs=rule.inputs)
