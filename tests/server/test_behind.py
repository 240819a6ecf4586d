"""What copies on their way lack: whatever changes while they are made, each is at every message as its number says."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.kernels.copies import group_starts
from mpips.kernels.partition import shard_of
from mpips.server import behind
from mpips.server.behind import NO_COPY, Behind
from tests.shards import grouped, table

KEYS = 200
SPECS = {kind: table(kind=kind, rows=KEYS * 1000) for kind in ("dense", "sparse")}
KEY = st.integers(0, KEYS - 1).map(lambda key: key * 997)


class Made:
    """A table of which another server is getting copies: a version for every key, a number for every shard."""

    def __init__(self, spec):
        self.spec = spec
        self.behind = Behind(spec)
        self.rows, self.numbers = {}, [0] * spec.shards
        self.copied = {}
        self.history = {(shard, 0): {} for shard in range(spec.shards)}

    def shard(self, key):
        return int(shard_of(np.uint64(key), self.spec.kind == "dense", self.spec.shard_bits))

    def of(self, shard):
        return {key: version for key, version in self.rows.items() if self.shard(key) == shard}

    def change(self, keys):
        keys = grouped(self.spec, keys)
        shards, starts = np.empty(keys.size, np.int64), np.empty(keys.size + 1, np.int64)
        count = group_starts(keys, self.spec.kind == "dense", self.spec.shard_bits, shards, starts)
        for key in keys.tolist():
            self.rows[key] = self.rows.get(key, 0) + 1
        self._counted(shards[:count])
        self.behind.changed(shards[:count], starts[: count + 1], keys)

    def touch(self, shard):
        """A change of a shard that concerns none of its rows."""
        self._counted([shard])
        self.behind.changed(np.array([shard]), np.zeros(2, np.int64), np.empty(0, np.uint64))

    def rewrite(self, shard):
        self.rows |= {key: version + 1 for key, version in self.of(shard).items()}
        self._counted([shard])
        self.behind.again([shard])

    def _counted(self, shards):
        for shard in shards:
            self.numbers[shard] += 1
            self.history[shard, self.numbers[shard]] = self.of(shard)

    def want(self, shard):
        number, _ = self.copied.get(shard, (NO_COPY, {}))
        self.behind.want(shard, number)

    def send_whole(self):
        shard, number = next(iter(self.behind.whole.items()))
        del self.behind.whole[shard]
        if number != self.numbers[shard]:
            self.copied[shard] = self.numbers[shard], self.of(shard)
        self.behind.sent(shard)
        self.check(shard)

    def send_rows(self, most):
        touched, starts, keys = self.behind.take(most)
        assert touched.size
        assert keys.size <= most or touched.size == 1
        for shard, start, end in zip(touched.tolist(), starts[:-1], starts[1:], strict=True):
            _, rows = self.copied[shard]
            rows = rows | {key: self.rows[key] for key in keys[start:end].tolist()}
            self.copied[shard] = self.numbers[shard], rows
            self.check(shard)

    def check(self, shard):
        number, rows = self.copied[shard]
        assert rows == self.history[shard, number]


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("room", [4, 1 << 20], ids=["little room", "room"])
@given(data=st.data())
def test_a_copy_is_at_every_message_as_its_number_says(kind, room, data):
    made = Made(SPECS[kind])
    shards = st.integers(0, made.spec.shards - 1)
    with mock.patch.object(behind, "MOST", room):
        for _ in range(data.draw(st.integers(1, 30))):
            step = data.draw(st.sampled_from(["change", "touch", "rewrite", "want", "whole", "whole", "rows"]))
            if step == "change":
                made.change(data.draw(st.lists(KEY, min_size=1, max_size=12)))
            elif step in ("touch", "rewrite", "want"):
                getattr(made, step)(data.draw(shards))
            elif step == "whole" and made.behind.whole:
                made.send_whole()
            elif step == "rows" and made.behind.lacks_rows:
                made.send_rows(data.draw(st.integers(1, 8)))
        while made.behind.lacks:
            made.send_whole() if made.behind.whole else made.send_rows(100)
    for shard in made.copied:
        assert made.copied[shard] == (made.numbers[shard], made.of(shard))


def test_only_copies_that_go_where_they_went_are_gone_on_with():
    made = Made(SPECS["sparse"])
    for shard in (0, 1):
        made.want(shard)
        made.send_whole()
    made.touch(0)
    made.touch(1)
    same = np.zeros(made.spec.shards, np.bool_)
    same[1] = True
    made.behind.keep(same)
    assert made.behind.take(10)[0].tolist() == [1]
    made.behind.keep(~same)
    made.touch(1)
    assert not made.behind.lacks


def test_a_row_that_changes_again_and_again_is_sent_once():
    made = Made(SPECS["dense"])
    made.want(0)
    made.send_whole()
    for _ in range(50):
        made.change([1, 5])
    assert made.behind.take(1000)[2].tolist() == [1, 5]
    assert not made.behind.lacks
