import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.dataserver.batch import Batch, batch_of
from mpips.dataserver.rows import Rows, concatenate
from mpips.dataserver.window import Window

ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0]),
        st.lists(st.tuples(st.integers(0, 2**64 - 1), st.sampled_from([1.0, 0.5, -2.0])), max_size=6),
    ),
    max_size=30,
)


def rows_from(rows):
    return Rows(
        np.array([label for label, _ in rows], np.float32),
        np.arange(len(rows)),
        np.cumsum([0] + [len(features) for _, features in rows]),
        np.array([key for _, features in rows for key, _ in features], np.uint64),
        np.array([value for _, features in rows for _, value in features], np.float32),
    )


@given(rows=ROWS, padding=st.integers(0, 3))
def test_a_batch_comes_out_of_its_blob_as_it_went_in(rows, padding):
    batch = batch_of(rows_from(rows))
    blob = np.full(batch.nbytes + 8 * padding, 0xAA, np.uint8)
    assert (
        batch.pack(blob)
        == batch.nbytes
        == Batch.nbytes_of(len(batch), batch.keys.size, batch.indices.size, batch.values.size)
    )
    again = Batch.unpack(blob)
    for name in ("keys", "indptr", "indices", "values", "labels"):
        array = getattr(again, name)
        assert array.dtype == getattr(batch, name).dtype
        assert array.ctypes.data % 8 == 0
        assert array.size == 0 or np.shares_memory(array, blob)
        np.testing.assert_array_equal(array, getattr(batch, name))


@given(rows=ROWS)
def test_keys_are_sorted_and_distinct_and_give_the_features_back(rows):
    given = rows_from(rows)
    batch = batch_of(given)
    assert (np.diff(batch.keys.astype(object)) > 0).all()
    np.testing.assert_array_equal(batch.keys[batch.indices], given.keys)
    np.testing.assert_array_equal(batch.values if batch.values.size else np.ones(given.keys.size), given.values)
    assert batch.values.size == (0 if (given.values == 1).all() else given.values.size)


def test_bytes_that_are_no_batch_are_refused():
    batch = batch_of(rows_from([(1.0, [(7, 0.5)])]))
    blob = np.empty(batch.nbytes, np.uint8)
    with pytest.raises(ValueError, match="does not fit"):
        batch.pack(blob[:-8])
    batch.pack(blob)
    with pytest.raises(ValueError, match="cut short"):
        Batch.unpack(blob[:-8])
    with pytest.raises(ValueError, match="not a batch"):
        Batch.unpack(np.zeros_like(blob))
    with pytest.raises(ValueError, match="at least 64"):
        Batch.unpack(blob[:8])


@given(
    sizes=st.lists(st.integers(0, 20), max_size=12),
    batch=st.integers(1, 9),
    nbytes=st.integers(1, 2000),
    shuffle=st.booleans(),
)
def test_a_window_gives_every_row_once_in_batches_of_one_size(sizes, batch, nbytes, shuffle):
    keys = iter(range(sum(sizes)))
    blocks = [rows_from([(0.0, [(next(keys), 1.0)]) for _ in range(size)]) for size in sizes]
    window = Window(batch, np.random.default_rng(1) if shuffle else None, nbytes)
    cut = [batch for block in blocks for batch in window.add(block)] + list(window.finish())
    seen = [key for each in cut for key in each.keys[each.indices].tolist()]
    assert sorted(seen) == list(range(sum(sizes)))
    assert shuffle or seen == list(range(sum(sizes)))
    assert all(len(each) == batch for each in cut[:-1])


def test_rows_are_shuffled_the_same_way_for_the_same_seed():
    rows = rows_from([(0.0, [(i, 1.0)]) for i in range(100)])

    def order(seed: int) -> list[int]:
        window = Window(100, np.random.default_rng(seed), 1 << 20)
        (batch,) = [*window.add(rows), *window.finish()]
        return batch.indices.tolist()

    assert order(1) == order(1) != order(2)
    assert order(1) != sorted(order(1))


@given(rows=ROWS)
def test_a_batch_gives_its_rows_back_with_their_keys(rows):
    given = rows_from(rows)
    batch = batch_of(given)
    again = batch.rows()
    for name in ("labels", "numbers", "indptr", "keys"):
        np.testing.assert_array_equal(getattr(again, name), getattr(given, name))
        assert getattr(again, name).dtype == getattr(given, name).dtype
    np.testing.assert_array_equal(again.values if again.values.size else np.ones(again.keys.size), given.values)


def test_the_rows_of_a_batch_outlive_its_blob():
    batch = batch_of(rows_from([(1.0, [(7, 0.5), (9, 1.0)])]))
    blob = np.empty(batch.nbytes, np.uint8)
    batch.pack(blob)
    rows = Batch.unpack(blob).rows()
    blob[:] = 0
    assert rows.labels.tolist() == [1.0]
    assert rows.indptr.tolist() == [0, 2]
    assert rows.keys.tolist() == [7, 9]
    assert rows.values.tolist() == [0.5, 1.0]


@given(parts=st.lists(ROWS, min_size=1, max_size=5))
def test_batches_put_together_have_the_rows_of_all_of_them(parts):
    """Where some have values and others none, these are ones."""
    whole = concatenate([batch_of(rows_from(rows)).rows() for rows in parts])
    given = rows_from([row for rows in parts for row in rows])
    np.testing.assert_array_equal(whole.labels, given.labels)
    np.testing.assert_array_equal(whole.indptr, given.indptr)
    np.testing.assert_array_equal(whole.keys, given.keys)
    np.testing.assert_array_equal(whole.values if whole.values.size else np.ones(whole.keys.size), given.values)
    assert (whole.values.size == 0) == (given.values == 1).all()


def test_concatenated_rows_keep_their_features():
    parts = [rows_from([(1.0, [(1, 1.0), (2, 2.0)])]), rows_from([(0.0, []), (1.0, [(3, 3.0)])])]
    whole = concatenate(parts)
    assert whole.indptr.tolist() == [0, 2, 2, 3]
    assert whole.take(np.array([2, 0])).keys.tolist() == [3, 1, 2]
