"""Every update rule, over ranges, rows and sparse keys, against the formula as its paper has it."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from numba import njit

from mpips.rule import RULES, update_rule
from tests.shards import grouped, pulled, shards_of, table


def assign(rule, w, g, state):
    return g


def add(rule, w, g, state):
    return w + g


def sgd(rule, w, g, state):
    return w - rule["rate"] * (g + rule["l2"] * w)


def adagrad(rule, w, g, state):
    """Duchi et al. 2011: the square root of the sum of squares is the rate; a proximal step for l1."""
    g = g + rule["l2"] * w
    state[0] += g * g
    rate = rule["alpha"] / (rule["beta"] + math.sqrt(state[0]))
    w = w - rate * g
    return math.copysign(max(0.0, abs(w) - rate * rule["l1"]), w)


def ftrl(rule, w, g, state):
    """McMahan et al. 2013, Algorithm 1, line by line; state n, z."""
    n, z = state
    sigma = (math.sqrt(n + g * g) - math.sqrt(n)) / rule["alpha"]
    state[1] = z = z + g - sigma * w
    state[0] = n = n + g * g
    if abs(z) <= rule["l1"]:
        return 0.0
    return -1 / ((rule["beta"] + math.sqrt(n)) / rule["alpha"] + rule["l2"]) * (z - math.copysign(rule["l1"], z))


def proximal(rule, w, g, state):
    """Li et al. 2014, Algorithm 3, for one weight: the minimiser of the model, no further than the radius; then how far
    the old weight was from the optimum.
    """
    slope, curvature = g[0] + rule["l2"] * w, (g[1] + rule["l2"]) / rule["rate"] + 1e-8
    radius = state[0] or rule["trust"]

    def model(v):
        return slope * (v - w) + curvature / 2 * (v - w) ** 2 + rule["l1"] * abs(v)

    zero_slope = [w - (slope + sign * rule["l1"]) / curvature for sign in (-1, 1)]
    best = min((v for v in (*zero_slope, 0.0)), key=model)
    best = min(max(best, w - radius), w + radius)  # the model is convex
    state[0] = min(rule["trust"], 2 * abs(best - w) + 0.1)
    subgradients = [slope + sign * rule["l1"] for sign in ((-1, 1) if w == 0 else (math.copysign(1, w),))]
    state[1] = 0.0 if min(subgradients) <= 0 <= max(subgradients) and w == 0 else min(map(abs, subgradients))
    return best


REFERENCES = {
    "assign": (assign, {}),
    "add": (add, {}),
    "sgd": (sgd, {"rate": 0.3, "l2": 0.1}),
    "adagrad": (adagrad, {"alpha": 0.2, "beta": 0.5, "l1": 0.1, "l2": 0.05}),
    "ftrl": (ftrl, {"alpha": 0.2, "beta": 1.0, "l1": 0.4, "l2": 0.1}),
    "proximal": (proximal, {"l1": 0.4, "l2": 0.1, "rate": 0.7, "trust": 0.8}),
}
ROWS = 5_000
CASES = [(name, "float32", 1) for name in REFERENCES]
CASES += [(name, "float64", 3) for name in ("ftrl", "adagrad", "proximal")]


def random_updates(rng, name, n, dtype, width):
    """As many numbers for each value as the rule takes; a second one is a curvature."""
    updates = rng.normal(size=(n, width, RULES[name].inputs))
    updates[..., 1:] = np.abs(updates[..., 1:]) + 0.1
    return updates.reshape(n, -1).astype(dtype)


def reference(name, keys, pushes, width):
    """Values and state of keys after pushes [(positions into keys, updates)], in Python floats."""
    function, rule = REFERENCES[name]
    values = np.zeros((len(keys), width))
    state = np.zeros((len(keys), width, RULES[name].slots))
    for positions, updates in pushes:
        for i, row in zip(positions, updates, strict=True):
            for j, part in enumerate(row.astype(float).reshape(width, -1)):
                values[i, j] = function(rule, values[i, j], part if part.size > 1 else part[0], state[i, j])
    return values, state


def spec_of(name, kind, dtype, width):
    return table(kind=kind, rows=ROWS, width=width, dtype=dtype, rule={"name": name, **REFERENCES[name][1]})


def close(got, expected, dtype):
    np.testing.assert_allclose(
        got, expected, rtol=2e-5 if dtype == "float32" else 1e-12, atol=1e-6 if dtype == "float32" else 1e-14
    )


@pytest.mark.parametrize(("name", "dtype", "width"), CASES)
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_pushed_keys_follow_the_rule(name, dtype, width, kind, rng):
    spec = spec_of(name, kind, dtype, width)
    shards = shards_of(spec)
    keys = np.sort(rng.choice(ROWS, 300, replace=False)).astype(np.uint64)
    pushes = []
    for _ in range(6):
        chosen = np.sort(rng.choice(keys.size, 100, replace=False))
        updates = random_updates(rng, name, 100, dtype, width)
        pushes.append((chosen, updates))
        in_order = grouped(spec, keys[chosen])
        shards.push(in_order, updates[np.searchsorted(keys[chosen], in_order)])
    values, state = reference(name, keys, pushes, width)
    close(pulled(shards, keys), values, dtype)
    assert np.count_nonzero(pulled(shards, keys)) == np.count_nonzero(values)  # what l1 makes zero is exactly zero
    for shard in shards.held:
        if kind == "sparse":
            held, got_values, got_state = shards.rows(shard)
            at = np.searchsorted(keys, held)
        else:
            lo, hi = spec.shard_range(shard)
            at = np.flatnonzero((keys >= lo) & (keys < hi))
            got_values, got_state = (part[(keys[at] - np.uint64(lo)).astype(int)] for part in shards.dense_rows(shard))
        close(got_values, values[at], dtype)
        close(got_state, state[at], dtype)


@pytest.mark.parametrize(("name", "dtype", "width"), CASES)
def test_a_pushed_range_follows_the_rule_and_leaves_the_rest(name, dtype, width, rng):
    spec = spec_of(name, "dense", dtype, width)
    shards = shards_of(spec)
    lo, hi = 700, 3_001
    pushes = [(range(hi - lo), random_updates(rng, name, hi - lo, dtype, width)) for _ in range(2)]
    for _, updates in pushes:
        shards.push_range(lo, hi, updates)
    values, _ = reference(name, range(hi - lo), pushes, width)
    got = pulled(shards, np.arange(ROWS))
    close(got[lo:hi], values, dtype)
    assert not got[:lo].any()
    assert not got[hi:].any()


def test_a_push_in_threads_is_the_push_without(rng):
    spec = table(rows=200_000, rule={"name": "ftrl"})
    updates = rng.normal(size=(150_000, 1)).astype(np.float32)
    keys = np.sort(rng.choice(200_000, 150_000, replace=False)).astype(np.uint64)
    one, three = shards_of(spec), shards_of(spec, threads=3)
    for shards in (one, three):
        shards.push(keys, updates)
        shards.push_range(0, 150_000, updates)
    np.testing.assert_array_equal(pulled(one, keys), pulled(three, keys))
    assert np.count_nonzero(pulled(one, keys)) > 140_000


def test_a_shard_is_at_rest_after_each_push():
    shards = shards_of(table(rows=ROWS))
    before = [int(shards._header(shard)[0]) for shard in shards.held]
    shards.push(np.arange(10, dtype=np.uint64), np.ones((10, 1), np.float32))
    shards.push_range(0, 2_000, np.ones((2_000, 1), np.float32))
    after = [int(shards._header(shard)[0]) for shard in shards.held]
    assert all(version % 2 == 0 for version in before + after)
    assert after[0] == before[0] + 4
    assert after[-1] == before[-1]


class Rate(NamedTuple):
    rate: float = 0.5


@pytest.fixture
def own_rules():
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


def test_a_users_rule_runs_with_its_state(own_rules):
    @update_rule(Rate, slots=1)
    @njit
    def heavy(rule, value, update, state):
        state[0] = 0.5 * state[0] + update
        return value - rule.rate * state[0]

    shards = shards_of(table(rows=ROWS, rule={"name": "heavy", "rate": 2.0}))
    for _ in range(2):
        shards.push(np.array([7], np.uint64), np.ones((1, 1), np.float32))
    assert pulled(shards, [6, 7])[:, 0].tolist() == [0.0, -2.0 * 1.0 - 2.0 * 1.5]


def test_a_users_rule_may_take_several_inputs_for_each_value_of_a_row(own_rules):
    @update_rule(Rate, inputs=3)
    @njit
    def weighted(rule, value, update, state):
        return value + rule.rate * update[0] * update[1] - update[2]

    shards = shards_of(table(rows=ROWS, width=2, rule={"name": "weighted"}))
    updates = np.array([[2, 3, 1, 4, 5, 6]], np.float32)  # of the first value, then of the second
    shards.push(np.array([7], np.uint64), updates)
    shards.push_range(8, 9, 2 * updates)
    assert pulled(shards, [6, 7, 8]).tolist() == [[0, 0], [2, 4], [10, 28]]


def test_two_rules_with_the_same_parameters_stay_two_rules(own_rules):
    @update_rule(Rate)
    @njit
    def forward(rule, value, update, state):
        return value + rule.rate * update

    @update_rule(Rate)
    @njit
    def backward(rule, value, update, state):
        return value - rule.rate * update

    got = []
    for name in ("forward", "backward"):
        shards = shards_of(table(rows=ROWS, rule={"name": name}))
        shards.push(np.array([7], np.uint64), np.ones((1, 1), np.float32))
        got.append(float(pulled(shards, [7])[0, 0]))
    assert got == [0.5, -0.5]
