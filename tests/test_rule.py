from typing import NamedTuple

import numpy as np
import pytest
from numba import njit

from mpips.rule import RULES, RuleError, make, update_rule


class Heavy(NamedTuple):
    rate: float = 0.1
    decay: float = 0.9


class Needy(NamedTuple):
    rate: float


@pytest.fixture(autouse=True)
def rules_are_as_before():
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_has_defaults(name):
    assert type(make({"name": name})) is RULES[name].parameters


def test_parameters_are_floats_whatever_number_they_are_given_as():
    made = make({"name": "ftrl", "alpha": 1, "l1": np.float64(2.5)})
    assert made == (1.0, 1.0, 2.5, 0.0)
    assert all(type(value) is float for value in made)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"name": "ftlr"}, 'update rule "ftlr" does not exist; did you mean "ftrl"?'),
        ({"name": "sgd", "rte": 1.0}, 'update rule "sgd" has no parameter "rte"; did you mean "rate"?'),
        ({"name": "add", "rate": 1.0}, 'update rule "add" has no parameter "rate"; there are: none'),
        ({"name": "sgd", "rate": "fast"}, "update rule \"sgd\": rate must be a number, got 'fast'"),
        ({"name": "sgd", "rate": True}, 'update rule "sgd": rate must be a number, got True'),
    ],
)
def test_a_wrong_rule_is_refused_with_what_is_wrong(wrong, text):
    with pytest.raises(RuleError) as error:
        make(wrong)
    assert str(error.value) == text


def test_a_rule_without_a_name_is_told_all_names():
    with pytest.raises(RuleError, match=r'update rule "None" does not exist; there are: adagrad, add, assign, .*sgd'):
        make({})


def test_a_registered_function_is_a_rule_of_its_own_name():
    @update_rule(Heavy, slots=1)
    @njit
    def heavy(rule, value, update, state):
        state[0] = rule.decay * state[0] + update
        return value - rule.rate * state[0]

    assert RULES["heavy"].slots == 1
    assert make({"name": "heavy", "rate": 2}) == Heavy(2.0, 0.9)
    assert heavy(Heavy(0.5, 0.0), 1.0, 1.0, np.zeros(1)) == 0.5  # still callable


def test_a_parameter_without_a_default_must_be_given():
    @update_rule(Needy)
    @njit
    def needy(rule, value, update, state):
        return update

    with pytest.raises(RuleError, match='update rule "needy" needs rate'):
        make({"name": "needy"})


def test_a_rule_that_is_built_in_keeps_its_name():
    with pytest.raises(RuleError, match='the update rule "momentum" is built in: give yours another name'):

        @update_rule(Heavy)
        @njit
        def momentum(rule, value, update, state):
            return value

    assert RULES["momentum"].slots == 1
