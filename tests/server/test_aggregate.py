"""A step is applied once, when every worker's part is in, as one sum whose bits do not depend on who came first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.errors import Error
from mpips.kernels.partition import shard_of
from mpips.server.aggregate import Aggregate, AggregateError, Part
from mpips.table import TableSpec

WORKERS = [4, 2, 9, 7]
DENSE = TableSpec(name="w", rows=1_000, width=2)
SPARSE = TableSpec(name="w", kind="sparse", rows=1_000, width=2)


def applied(step, lo, hi, keys, then):
    """No copy is waited for."""
    then()


class Applied:
    """What was applied and answered, in order."""

    def __init__(self, spec, workers=WORKERS, refuse=None):
        self.sums = []
        self.answers = []
        self.dropped = []
        self.refuse = refuse
        self.aggregate = Aggregate(spec, workers, self.apply, applied)

    def apply(self, cut, lo, hi, keys, values, rule, step, parts):
        if self.refuse:
            raise self.refuse
        self.sums.append((lo, hi, None if keys is None else keys.tolist(), values.copy()))

    def add(self, worker, step, values, lo=0, hi=10, keys=None):
        part = Part(
            lo, hi, keys, values, 0,
            lambda error: self.answers.append((worker, step, error)), lambda: self.dropped.append((worker, step)),
        )  # fmt: skip
        self.aggregate.add(worker, step, part)


def rows(number=1.0, n=10):
    return np.full((n, 2), number, np.float32)


def keys_of(*keys):
    return np.array(keys, np.uint64)


def in_order(spec, keys):
    """Keys in the order in which a push of the table has them."""
    if spec.kind == "dense":
        return np.sort(keys)
    return np.array(sorted(keys, key=lambda key: (shard_of(key, False, spec.shard_bits), key)), np.uint64)


def fold(parts):
    """((a + b) + c) + … by key, of dictionaries of rows, and the keys."""
    total = {}
    for part in parts:
        for key, row in part.items():
            total[key] = total[key] + row if key in total else row
    return total


@given(arrival=st.permutations([(worker, step) for worker in WORKERS for step in (1, 2)]), seed=st.integers(0, 2**32))
def test_sums_of_ranges_are_the_same_to_the_bit_in_any_order_of_arrival(arrival, seed):
    rng = np.random.default_rng(seed)
    pushed = {key: (rng.normal(size=(10, 2)) * 10.0 ** rng.integers(-9, 9, (10, 2))).astype("f4") for key in arrival}
    applied = Applied(DENSE)
    for worker, step in arrival:
        values = pushed[worker, step].copy()
        values.flags.writeable = False  # parts are only read
        applied.add(worker, step, values)
    last = {step: max(i for i, (_, other) in enumerate(arrival) if other == step) for step in (1, 2)}
    steps = sorted(last, key=last.__getitem__)
    for step, (lo, hi, keys, values) in zip(steps, applied.sums, strict=True):
        a, b, c, d = (pushed[worker, step] for worker in WORKERS)
        assert (lo, hi, keys) == (0, 10, None)
        assert values.tobytes() == (((a + b) + c) + d).tobytes()
    assert applied.answers == [(worker, step, None) for step in steps for worker in WORKERS]
    assert applied.aggregate.waiting() == {}


@pytest.mark.parametrize("spec", [DENSE, SPARSE], ids=["dense", "sparse"])
@given(arrival=st.permutations(WORKERS), seed=st.integers(0, 2**32))
def test_sums_of_key_lists_are_the_same_to_the_bit_in_any_order_of_arrival(spec, arrival, seed):
    rng = np.random.default_rng(seed)
    applied, pushed = Applied(spec), {}
    for worker in arrival:
        keys = in_order(spec, rng.choice(60, rng.integers(0, 40), replace=False).astype(np.uint64))
        values = (rng.normal(size=(keys.size, 2)) * 10.0 ** rng.integers(-9, 9, (keys.size, 2))).astype(np.float32)
        pushed[worker] = dict(zip(keys.tolist(), values, strict=True))
        keys.flags.writeable = values.flags.writeable = False
        assert applied.sums == applied.answers == []
        applied.add(worker, 1, values, keys=keys)
    expected = fold([pushed[worker] for worker in WORKERS])
    ((_, _, keys, values),) = applied.sums
    assert keys == in_order(spec, np.array(list(expected), np.uint64)).tolist()
    assert values.tobytes() == b"".join(expected[key].tobytes() for key in keys)
    assert applied.answers == [(worker, 1, None) for worker in WORKERS]


@pytest.mark.parametrize("keys", [None, keys_of(*range(10))], ids=["range", "key list"])
def test_the_order_of_workers_is_the_order_of_the_sum(keys):
    numbers = {1: 1.0, 2: 1e8, 3: -1e8}
    for workers, expected in (([1, 2, 3], 0.0), ([2, 3, 1], 1.0)):  # (1 + 1e8) − 1e8 and (1e8 − 1e8) + 1 in float32
        applied = Applied(DENSE, workers)
        for worker, number in numbers.items():
            applied.add(worker, 1, rows(number), keys=keys)
        assert (applied.sums[0][3] == expected).all()


def test_a_single_worker_is_applied_at_once_from_its_own_memory():
    seen = []

    def apply(cut, lo, hi, keys, values, rule, step, parts):
        seen.append((keys, values))

    aggregate = Aggregate(DENSE, [5], apply, applied)
    values, keys = rows(), keys_of(*range(10))
    aggregate.add(5, 1, Part(0, 10, None, values, 0, lambda error: seen.append(error)))
    aggregate.add(5, 2, Part(0, 10, keys, values, 0, lambda error: seen.append(error)))
    assert [keys is None for keys, _ in seen[::2]] == [True, False]
    assert all(applied is values for _, applied in seen[::2])
    assert seen[2][0] is keys
    assert seen[1::2] == [None, None]


def test_a_repeated_part_replaces_the_first_and_only_the_repetition_is_answered():
    applied = Applied(DENSE, [1, 2])
    first, again = [], []
    applied.aggregate.add(1, 1, Part(0, 20, None, rows(5, 20), 0, first.append))
    applied.aggregate.add(1, 1, Part(0, 10, None, rows(7), 0, again.append))
    applied.add(2, 1, rows(1))
    assert (applied.sums[0][3] == 8).all()
    assert (first, again) == ([], [None])


def test_a_refused_update_is_told_to_every_worker_and_the_next_step_goes_on():
    class TooMuch(Error):
        pass

    problem = TooMuch("no room")
    applied = Applied(DENSE, [1, 2], refuse=problem)
    applied.add(2, 1, rows())
    applied.add(1, 1, rows())
    assert applied.answers == [(1, 1, problem), (2, 1, problem)]
    applied.refuse = None
    for worker in (1, 2):
        applied.add(worker, 2, rows())
    assert len(applied.sums) == 1
    assert applied.answers[2:] == [(1, 2, None), (2, 2, None)]


def test_an_error_of_the_program_is_not_taken_for_a_refusal():
    applied = Applied(DENSE, [1], refuse=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        applied.add(1, 1, rows())
    assert applied.answers == []


def test_missing_workers_are_told_by_step():
    applied = Applied(DENSE)
    applied.add(9, 3, rows())
    applied.add(2, 1, rows())
    applied.add(9, 1, rows())
    waiting = applied.aggregate.waiting()
    assert list(waiting.items()) == [(1, [4, 7]), (3, [4, 2, 7])]


def test_a_worker_that_has_no_part_in_the_table_is_named():
    applied = Applied(DENSE)
    with pytest.raises(AggregateError, match=r'table "w": the push of worker 3 in step 6 .* workers 4, 2, 9, 7$'):
        applied.add(3, 6, rows())
    assert applied.aggregate.waiting() == {}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"lo": 5, "hi": 15}, r"pushed rows of \[5, 15\), but worker 9 rows of \[0, 10\)"),
        ({"lo": 1}, r"pushed rows of \[1, 10\), but worker 9 rows of \[0, 10\)"),
        ({"lo": 0, "hi": 9}, r"pushed rows of \[0, 9\), but worker 9 rows of \[0, 10\)"),
        ({"keys": keys_of(*range(10))}, r"pushed a list of keys of \[0, 10\), but worker 9 rows of \[0, 10\)"),
    ],
)
def test_parts_that_do_not_cover_the_same_are_refused_and_named(wrong, text):
    applied = Applied(DENSE, [9, 2])
    applied.add(9, 6, rows())
    with pytest.raises(AggregateError, match=f'table "w": in step 6 worker 2 {text}; pushes that are summed must'):
        applied.add(2, 6, rows(), **wrong)
    assert applied.aggregate.waiting() == {6: [2]}
    applied.add(2, 6, rows())
    assert len(applied.sums) == 1


def test_parts_that_will_come_again_are_dropped_and_said_to_be():
    found = Applied(DENSE)
    found.add(4, 1, rows())
    found.add(2, 1, rows())
    found.aggregate.forget()
    assert sorted(found.dropped) == [(2, 1), (4, 1)]
    for worker in WORKERS:
        found.add(worker, 1, rows())
    assert found.answers == [(worker, 1, None) for worker in WORKERS]


def test_a_step_that_only_waited_for_workers_that_are_gone_is_over():
    found = Applied(DENSE)
    for worker in (4, 9, 2):
        found.add(worker, 1, rows(worker))
    found.add(2, 2, rows())
    found.aggregate.keep([4, 2])
    assert found.dropped == [(9, 1)]
    assert found.answers == [(4, 1, None), (2, 1, None)]
    assert found.sums[0][3][0, 0] == 6.0
    found.add(4, 2, rows())
    assert found.answers[2:] == [(4, 2, None), (2, 2, None)]
    with pytest.raises(AggregateError, match="worker 9"):
        found.add(9, 3, rows())
