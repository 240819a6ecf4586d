"""Filters one after the other."""

from itertools import permutations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.filters import Chain, Filter, FilterError, register
from mpips.filters.contract import FilterContract
from tests.filters.travel import Way, column, some_keys

DROPPING = [
    {"name": "kkt"},
    {"name": "significance", "absolute": 0.5},
    {"name": "zeros"},
    {"name": "random_skip", "probability": 0.75},
]
KEYS = {"name": "key_cache"}
BYTES = {"name": "compression", "codec": "zstd"}
VALUES = {"name": "quantise", "bytes": 3}
CHANGES = {"name": "delta", "absolute": 1e-6}
ENDS = [
    (VALUES, KEYS, BYTES),
    (CHANGES, KEYS, BYTES),
    (CHANGES,),
    (KEYS, BYTES),
    (VALUES, KEYS),
    (VALUES, BYTES),
    (BYTES,),
    (),
]
PULLED = [{"name": "significance", "absolute": 0.5}, {"name": "zeros"}]


@st.composite
def stacks(draw, dropping):
    chosen = draw(st.lists(st.sampled_from(dropping), unique_by=lambda spec: spec["name"]))
    return [*draw(st.permutations(chosen)), *draw(st.sampled_from(ENDS))]


def sparse_values(rng, n, width, dtype):
    return (rng.normal(size=(n, width)) * (rng.random((n, 1)) < 0.5)).astype(dtype)


@settings(max_examples=150)
@given(stacks(PULLED), st.sampled_from([1, 3]), st.sampled_from(["float32", "float64"]), st.integers(0, 2**32))
def test_a_pull_gives_every_key_its_value_through_any_stack(specs, width, dtype, seed):
    rng = np.random.default_rng(seed)
    request, answer = (Way(*specs, direction=way, width=width, dtype=dtype) for way in ("request", "pull"))
    lists = [some_keys(int(n), rng, 300) for n in rng.integers(0, 200, 3)]
    table = sparse_values(rng, 300, width, dtype)
    for _ in range(8):
        changed = rng.random(300) < 0.3
        table[changed] = sparse_values(rng, int(changed.sum()), width, dtype)
        asked = lists[rng.integers(3)]
        arrived = request.decode(request.sender.encode(asked)).keys
        assert np.array_equal(arrived, asked)
        packet = answer.send(asked, table[asked.astype(int)])
        limit = 0.5 if specs and any(spec["name"] == "significance" for spec in specs) else 0.0
        assert np.array_equal(packet.keys, asked)
        assert np.allclose(packet.values, table[asked.astype(int)], rtol=0, atol=limit + 1e-5)


def has(specs, name):
    return any(spec["name"] == name for spec in specs)


@settings(max_examples=150)
@given(stacks(DROPPING[:3]), st.sampled_from([1, 3]), st.sampled_from(["float32", "float64"]), st.integers(0, 2**32))
def test_what_pushes_add_up_to_arrives_through_any_stack(specs, width, dtype, seed):
    rng = np.random.default_rng(seed)
    way = Way(*specs, width=width, dtype=dtype)
    lists = [*(some_keys(int(n), rng, 300) for n in rng.integers(0, 200, 3)), range(20, 150)]
    sums, arrived = np.zeros((300, width)), np.zeros((300, width))
    for _ in range(8):
        keys = lists[rng.integers(4)]
        values = sparse_values(rng, len(keys), width, dtype)
        sums[np.asarray(keys, int)] += values
        packet = way.send(keys, values)
        arrived[np.asarray(packet.keys, int)] += packet.values
    if has(specs, "significance"):
        keys, updates = way.sender["significance"].held_back()
        arrived[keys.astype(int)] += updates
    assert np.allclose(arrived, sums, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dropping", list(permutations(DROPPING)), ids=lambda specs: "-".join(s["name"] for s in specs))
def test_all_filters_together_push_a_part_of_the_keys_in_their_order(dropping, rng):
    way = Way(*dropping, VALUES, KEYS, BYTES)
    keys = some_keys(4096, rng)
    learned = keys[::2]
    way.sender["kkt"].learn(learned, np.zeros(learned.size))
    packet = way.send(keys, sparse_values(rng, 4096, 1, "float32"))
    assert 0 < packet.keys.size < 2048
    assert (np.diff(packet.keys) > 0).all()
    assert not np.isin(packet.keys, learned).any()


def test_every_filter_says_what_it_saved(rng):
    specs = [{"name": "zeros"}, {"name": "quantise", "bytes": 1}, KEYS]
    chain, keys = Chain(specs, "push", 1, "float32", 1000), some_keys(1000, rng)
    values = np.ones((1000, 1), np.float32)
    values[:100] = 0
    wires = [chain.encode(keys, values) for _ in range(2)]
    note = 1 + 1 + 8  # bytes of eight: the step
    signature = 9
    assert chain.raw == 2 * 12_000
    assert chain.saved() == {
        "zeros": 2 * (100 * 12 - 1),
        "quantise": 2 * (900 * 3 - note),
        "key_cache": 900 * 8 - 2 * signature,
    }
    assert chain.sent == chain.raw - sum(chain.saved().values())
    assert chain.sent == sum(wire.keys.nbytes + wire.values.nbytes + 1 + note + signature for wire in wires)


def test_a_chain_without_filters_copies_nothing(rng):
    way, keys, values = Way(), some_keys(10, rng), np.ones((10, 1), np.float32)
    wire = way.sender.encode(keys, values)
    assert np.shares_memory(wire.keys, keys)
    assert np.shares_memory(wire.values, values)
    packet = way.decode(wire)
    assert np.shares_memory(packet.values, values)
    assert np.array_equal(packet.keys, keys)
    assert (way.sender.raw, way.sender.sent, way.sender.saved()) == (120, 120, {})


def test_filters_that_only_save_bytes_step_aside_on_one_node():
    specs = [*DROPPING, VALUES, KEYS, BYTES]
    chain = Chain(specs, "push", 1, "float32", 10, near=True)
    assert list(chain.saved()) == ["kkt", "significance", "zeros", "random_skip"]
    assert list(Chain(specs, "push", 1, "float32", 10).saved()) == [spec["name"] for spec in specs]


@pytest.mark.parametrize(
    ("specs", "direction", "text"),
    [
        ([{"name": "quantize"}], "push", 'filter "quantize" does not exist; did you mean "quantise"?'),
        ([{}], "push", 'filter "None" does not exist'),
        ([{"name": "quantise", "byte": 2}], "push", 'filter "quantise": byte: unknown key; did you mean "bytes"?'),
        ([{"name": "quantise", "bytes": 5}], "push", 'filter "quantise": bytes: '),
        ([{"name": "random_skip", "probability": 0.0}], "push", 'filter "random_skip": probability: '),
        ([{"name": "compression", "codec": "zst"}], "push", 'filter "compression": codec: .*"zstd"'),
        ([{"name": "kkt"}], "pull", 'filter "kkt" does not work on a pull; remove it there'),
        ([{"name": "random_skip"}], "request", 'filter "random_skip" does not work on a pull'),
        ([VALUES, {"name": "zeros"}], "push", 'filter "zeros" must come before "quantise", after which .* no values'),
        ([KEYS, {"name": "kkt"}], "push", 'filter "kkt" must come before "key_cache", after which there are no keys'),
        ([BYTES, KEYS], "request", 'filter "key_cache" must come before "compression"'),
    ],
)
def test_wrong_filters_are_refused_with_a_remedy(specs, direction, text):
    with pytest.raises(FilterError, match=text):
        Chain(specs, direction, 1, "float32", 10)


def test_a_filter_that_is_not_in_the_chain_is_named():
    with pytest.raises(FilterError, match='there is no filter "kkt" on this push'):
        Chain([{"name": "zeros"}], "push", 1, "float32", 10)["kkt"]


def test_a_peer_with_other_filters_is_noticed():
    wire = Chain([{"name": "zeros"}], "push", 1, "float32", 10).encode(range(2), column(0, 1))
    with pytest.raises(FilterError, match="the peer has 1 filters on this push, here are none"):
        Chain([], "push", 1, "float32", 10).decode(wire.keys, wire.values, wire.notes, wire.count)


def test_a_pull_of_other_keys_is_noticed():
    way = Way(direction="pull")
    wire = way.sender.encode(range(2), column(0, 1))
    with pytest.raises(FilterError, match="3 entries decoded of 2 encoded"):
        way.decode(wire, range(3))


def test_what_did_not_change_is_not_sent_again_when_a_value_before_it_becomes_zero():
    way = Way({"name": "zeros"}, {"name": "significance"}, direction="pull")
    way.send(range(4), column(1, 2, 3, 4))
    wire = way.sender.encode(range(4), column(1, 0, 3, 4))
    assert wire.values.nbytes == 0
    assert way.decode(wire, range(4)).values.tolist() == [[1], [0], [3], [4]]


@register("halve")
class Halve(Filter):
    """A user's filter, with a parameter."""

    class Parameters(msgspec.Struct, frozen=True):
        times: int = 1

    def encode(self, packet):
        return packet._replace(values=packet.values / packet.values.dtype.type(2**self.parameters.times))

    def decode(self, packet):
        return packet


class TestOwnFilter(FilterContract):
    def spec(self):
        return {"name": "halve", "times": 2}

    def delivered(self, values):
        return values / 4
