"""A list of keys travels once."""

import numpy as np
import pytest

from mpips.filters import KeysMissing
from mpips.filters.contract import FilterContract
from tests.filters.travel import Way, column, some_keys

CACHE = {"name": "key_cache"}
THREE_LISTS = {"name": "key_cache", "megabytes": 0.0024}  # of 100 keys


class TestKeyCache(FilterContract):
    def spec(self):
        return CACHE


class TestKeyCacheThatForgets(FilterContract):
    def spec(self):
        return THREE_LISTS


def sent(way, keys):
    """Bytes of keys that travel; what arrives is checked."""
    wire = way.sender.encode(keys, np.ones((len(keys), 1), np.float32))
    assert np.array_equal(way.decode(wire).keys, keys)
    return wire.keys.nbytes


def test_a_list_travels_once(rng):
    way, keys = Way(CACHE), some_keys(100, rng)
    assert [sent(way, each) for each in (keys, keys, keys.copy(), keys[:-1], keys)] == [800, 0, 0, 792, 0]


def test_a_list_that_was_changed_in_place_is_another_one(rng):
    way, keys = Way(CACHE), some_keys(100, rng)
    sent(way, keys)
    keys[50] += 1
    assert sent(way, keys) == 800


def test_lists_used_longest_ago_make_room_on_both_sides(rng):
    way, lists = Way(THREE_LISTS), [some_keys(100, rng) for _ in range(4)]
    for i in (0, 1, 2, 0, 3):
        sent(way, lists[i])
    assert [sent(way, lists[i]) for i in (0, 3, 2, 1)] == [0, 0, 0, 800]


def test_a_list_larger_than_the_memory_is_sent_every_time(rng):
    way, keys = Way(THREE_LISTS), some_keys(1000, rng)
    small = some_keys(100, rng)
    assert [sent(way, each) for each in (small, keys, keys, small)] == [800, 8000, 8000, 0]


def test_a_list_that_comes_again_from_a_new_sender_takes_no_more_room(rng):
    way, lists = Way(THREE_LISTS), [some_keys(100, rng) for _ in range(3)]
    senders = [Way(THREE_LISTS).sender for _ in range(3)]
    for way.sender in senders:
        sent(way, lists[0])
    assert [sent(way, lists[i]) for i in (1, 2, 0, 1, 2)] == [800, 800, 0, 0, 0]


def test_a_receiver_without_the_list_says_so_and_learns_it(rng):
    way, keys = Way({"name": "quantise"}, CACHE, {"name": "compression"}), some_keys(100, rng)
    way.sender.encode(keys, np.ones((100, 1), np.float32))
    wire = way.sender.encode(keys, np.ones((100, 1), np.float32))
    with pytest.raises(KeysMissing, match="ask the sender") as missing:
        way.decode(wire)
    signature = missing.value.signature
    way.receiver["key_cache"].learn(signature, way.sender["key_cache"].keys_of(signature))
    assert np.array_equal(way.decode(wire).keys, keys)


def test_the_receiver_keeps_a_copy(rng):
    way, keys = Way(CACHE), some_keys(100, rng)
    wire = way.sender.encode(keys, np.ones((100, 1), np.float32))
    memory = wire.keys.copy()
    way.receiver.decode(memory, wire.values, wire.notes, wire.count)
    memory[:] = 0
    assert sent(way, keys) == 0


def test_a_pull_caches_the_list_of_its_request(rng):
    keys, way = some_keys(100, rng), Way(CACHE, direction="request")
    assert [way.sender.encode(keys).keys.nbytes for _ in range(2)] == [800, 0]
    answer = Way(CACHE, direction="pull").sender
    assert "key_cache" not in answer
    assert answer.encode(keys[:1], column(1)).keys.nbytes == 0
