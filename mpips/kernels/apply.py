"""Update rules over arrays: a push applied to the shards of a server, in place.

`cells` is the server's arena as the table's dtype, `words` the same bytes as int64. A shard's version is odd while it
is written. A rule's function is found by its parameters' type, so one loop serves every rule and its compiled form is
cached; the loops of a user's rule are compiled anew in each run, since numba can't see whether its file has changed.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload

from mpips.kernels.header import COUNT, LOCATION, VERSION, WORDS, bits_of, block_of
from mpips.kernels.memory import prefetch, release
from mpips.kernels.partition import shard_of
from mpips.kernels.search import first_from
from mpips.kernels.sparse import AHEAD, fetch, find, is_full, occupy
from mpips.rule import RULES, Adagrad, Add, Assign, Ftrl, Momentum, Proximal, Sgd

LEAST_CURVATURE = 1e-8
LEAST_RADIUS = 0.1


@njit
def _assign(rule, value, update, state):
    return update


@njit
def _add(rule, value, update, state):
    return value + update


@njit
def _sgd(rule, value, update, state):
    return value - rule.rate * (update + rule.l2 * value)


@njit
def _momentum(rule, value, update, state):
    state[0] = rule.momentum * state[0] - rule.rate * (update + rule.decay * value)
    return value + state[0]


@njit
def _adagrad(rule, value, update, state):
    gradient = update + rule.l2 * value
    state[0] += gradient * gradient
    rate = rule.alpha / (rule.beta + np.sqrt(np.float64(state[0])))
    stepped = value - rate * gradient
    shrunk = abs(stepped) - rate * rule.l1
    return np.sign(stepped) * shrunk if shrunk > 0.0 else 0.0


@njit
def _ftrl(rule, value, update, state):
    before = np.sqrt(np.float64(state[0]))
    state[0] += update * update
    after = np.sqrt(np.float64(state[0]))
    state[1] += update - (after - before) / rule.alpha * value
    z = np.float64(state[1])
    if abs(z) <= rule.l1:
        return 0.0
    return -(z - np.sign(z) * rule.l1) / ((rule.beta + after) / rule.alpha + rule.l2)


@njit
def _proximal(rule, value, update, state):
    gradient = np.float64(update[0]) + rule.l2 * value
    curvature = (update[1] + rule.l2) / rule.rate + LEAST_CURVATURE
    if value == 0.0:
        state[1] = max(abs(gradient) - rule.l1, 0.0)
    else:
        state[1] = abs(gradient + np.sign(value) * rule.l1)
    at = value - gradient / curvature
    shrunk = abs(at) - rule.l1 / curvature
    step = (np.sign(at) * shrunk if shrunk > 0.0 else 0.0) - value
    radius = state[0] if state[0] > 0.0 else rule.trust
    step = min(max(step, -radius), radius)
    state[0] = min(rule.trust, 2.0 * abs(step) + LEAST_RADIUS)
    return value + step


_BUILT_IN = {
    Assign: _assign,
    Add: _add,
    Sgd: _sgd,
    Momentum: _momentum,
    Adagrad: _adagrad,
    Ftrl: _ftrl,
    Proximal: _proximal,
}


def step(rule: Any, value: Any, update: Any, state: Any) -> Any:
    """The new value of one parameter under a rule; known to numba alone, see `_step`."""


@overload(step)
def _step(rule, value, update, state):
    kind = rule.instance_class
    function = _BUILT_IN.get(kind)
    if function is None:
        function = next(known.step for known in RULES.values() if known.parameters is kind)

    def run(rule, value, update, state):
        return function(rule, value, update, state)

    return run


def part(rule: Any, updates: Any, at: Any) -> Any:
    """What a push has for value `at`: one number, or as many as the rule takes; known to numba alone, see `_part`."""


@overload(part, inline="always")
def _part(rule, updates, at):
    inputs = next(known.inputs for known in RULES.values() if known.parameters is rule.instance_class)
    if inputs == 1:
        return lambda rule, updates, at: updates[at]
    return lambda rule, updates, at: updates[at * inputs : (at + 1) * inputs]


@njit(nogil=True, cache=True)
def apply_range(rule, words, header, values, state, updates):
    """Apply `updates` (n·inputs,) to neighbouring `values` (n,) with `state` (n, slots) of a shard; `header` is the
    word of its header.
    """
    words[header + VERSION] += 1
    release()
    for i in range(values.size):
        values[i] = step(rule, values[i], part(rule, updates, i), state[i])
    release()
    words[header + VERSION] += 1


@njit(nogil=True, cache=True)
def apply_dense(rule, words, cells, headers, keys, updates, bits, width, slots, shards):
    """Apply `updates` (n, width·inputs) to the rows `keys` (n,), sorted by shard, of a dense table; `headers` is the
    word of its first header, `shards` how many it has.

    Returns how many were applied: all, unless a shard is not held here, or not the table's: a server that was taken for
    dead may read what is no key any more.
    """
    mask = np.uint64((np.int64(1) << bits) - 1)
    i = 0
    while i < keys.size:
        shard = np.int64(keys[i] >> np.uint64(bits))
        header = headers + shard * WORDS
        if shard < 0 or shard >= shards or words[header + LOCATION] == 0:
            return i
        end = first_from(keys, i, np.uint64(shard + 1) << np.uint64(bits))
        values = block_of(words[header + LOCATION]) // cells.itemsize
        states = values + (np.int64(width) << bits)
        words[header + VERSION] += 1
        release()
        for k in range(i, end):
            if k + AHEAD < end:
                ahead = np.int64(keys[k + AHEAD] & mask) * width
                prefetch(cells, values + ahead)
                if slots > 0:
                    prefetch(cells, states + ahead * slots)
            row = np.int64(keys[k] & mask) * width
            for j in range(width):
                at = values + row + j
                held = states + (row + j) * slots
                cells[at] = step(rule, cells[at], part(rule, updates[k], j), cells[held : held + slots])
        release()
        words[header + VERSION] += 1
        i = end
    return keys.size


@njit(nogil=True, cache=True)
def apply_sparse(rule, words, cells, headers, keys, updates, bits, width, slots, stride, start):
    """The same for a sparse table, whose new keys are inserted; stops, and returns where, at a shard that must grow
    first, or that is not held here.
    """
    ratio = 8 // cells.itemsize
    for i in range(start, keys.size):
        if i + AHEAD < keys.size:
            fetch(words, headers + shard_of(keys[i + AHEAD], False, bits) * WORDS, 0, stride, keys[i + AHEAD])
        header = headers + shard_of(keys[i], False, bits) * WORDS
        where = words[header + LOCATION]
        if where == 0:
            return i
        block, block_bits = block_of(where) >> 3, bits_of(where)
        row = find(words, block, block_bits, stride, keys[i])
        fresh = row < 0
        if fresh:
            if is_full(words, header):
                return i
            row = -1 - row
        values = (block + row * stride + 1) * ratio
        states = values + width
        words[header + VERSION] += 1
        release()
        for j in range(width):
            at = values + j
            held = states + j * slots
            cells[at] = step(rule, cells[at], part(rule, updates[i], j), cells[held : held + slots])
        if fresh:
            words[header + COUNT] += 1
            occupy(words, block, block_bits, stride, row, keys[i])
        release()
        words[header + VERSION] += 1
    return keys.size


@njit(nogil=True, cache=True)
def apply_rows(rule, words, cells, headers, keys, rows, updates, bits, width, slots):
    """The same for keys whose rows in a sparse table are known: the words where they begin (n,), from `resolve`."""
    ratio = 8 // cells.itemsize
    for i in range(keys.size):
        if i + AHEAD < keys.size:
            prefetch(words, rows[i + AHEAD])
        header = headers + shard_of(keys[i], False, bits) * WORDS
        values = (rows[i] + 1) * ratio
        states = values + width
        words[header + VERSION] += 1
        release()
        for j in range(width):
            at = values + j
            held = states + j * slots
            cells[at] = step(rule, cells[at], part(rule, updates[i], j), cells[held : held + slots])
        release()
        words[header + VERSION] += 1


class Loops(NamedTuple):
    """The loops that apply a rule."""

    range: Any
    dense: Any
    sparse: Any
    rows: Any


_CACHED = Loops(apply_range, apply_dense, apply_sparse, apply_rows)


def loops(rule: Any) -> Loops:
    """The loops for a rule: the cached ones when it is built in, fresh ones for a user's."""
    if type(rule) in _BUILT_IN:
        return _CACHED
    return Loops(*(njit(nogil=True)(loop.py_func) for loop in _CACHED))
