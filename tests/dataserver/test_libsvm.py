import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_svmlight_file

from mpips.dataserver.errors import DataError
from mpips.dataserver.source import prepare

from .reading import libsvm, read_all

NUMBERS = st.one_of(
    st.integers(-1000, 1000).map(str),
    st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False).map(repr),
    st.floats(-10, 10).map(lambda x: f"{x:.3f}"),
    st.floats(-10, 10).map(lambda x: f"{x:+.5E}"),
    st.sampled_from(["1", "1.", ".5", "-.25", "+3", "1e3", "0", "-0", "000123", "12345678901234567890123"]),
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["1", "-1", "0", "+1", "1.0"]),
        st.dictionaries(st.integers(0, 2**31 - 2), NUMBERS, max_size=8),
        st.sampled_from(["", " ", "\t", " # a comment", "\r"]),
    ),
    min_size=1,
    max_size=20,
)


@given(rows=ROWS)
def test_rows_are_those_that_scikit_learn_reads(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("libsvm")
    text = "".join(
        f"{label} " + " ".join(f"{key}:{value}" for key, value in sorted(features.items())) + f"{end}\n"
        for label, features, end in rows
    )
    train, _ = read_all(libsvm(folder, text), folder)
    matrix, labels = load_svmlight_file(io.BytesIO(text.encode()), zero_based=True)
    matrix.sort_indices()
    expected = []
    for i in range(len(labels)):
        row = slice(matrix.indptr[i], matrix.indptr[i + 1])
        values = matrix.data[row].astype(np.float32).tolist()
        expected.append((float(labels[i] > 0), tuple(zip(matrix.indices[row].tolist(), values, strict=True))))
    assert sorted(train) == sorted(expected)


def test_keys_may_be_any_64_bit_number_in_any_order(tmp_path):
    keys = [2**64 - 1, 3, 2**63, 0]
    spec = libsvm(tmp_path, "1 " + " ".join(f"{key}:{i}" for i, key in enumerate(keys)))
    assert read_all(spec, tmp_path)[0] == [(1.0, ((0, 3.0), (3, 1.0), (2**63, 2.0), (2**64 - 1, 0.0)))]
    assert prepare(spec, tmp_path, 0, 1).features == 2**64


def test_a_long_row_in_any_order_is_sorted(tmp_path):
    keys = np.random.default_rng(1).permutation(100_000)
    (row,), _ = read_all(libsvm(tmp_path, "1 " + " ".join(f"{key}:{key % 7}" for key in keys)), tmp_path)
    assert row[1] == tuple((key, float(key % 7)) for key in range(100_000))


def test_blank_lines_comments_and_a_missing_last_newline_are_harmless(tmp_path):
    spec = libsvm(tmp_path, "\n# head\r\n1 5:1\r\n  \n\t-1 7:2.5 # tail\n\n0")
    train, _ = read_all(spec, tmp_path)
    assert sorted(train) == [(0.0, ()), (0.0, ((7, 2.5),)), (1.0, ((5, 1.0),))]
    assert prepare(spec, tmp_path, 0, 1).features == 8


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("yes 1:1", '"yes" is not a finite number'),
        ("nan 1:1", '"nan" is not a finite number'),
        ("2 1:1", 'the label "2" is none of 1, 0, -1'),
        ("1 1:nan", '"1:nan" is not a finite number'),
        ("1 1:inf", '"1:inf" is not a finite number'),
        ("1 1:1e39", '"1:1e39" is not a finite number'),
        ("1 1:0x5", '"1:0x5" is not a finite number'),
        ("1 1:", '"1:" is not a finite number'),
        ("1 1:2:3", '"1:2:3" is not a finite number'),
        ("1 -1:1", '"-1:1" is not key:value'),
        ("1 a:1", '"a:1" is not key:value'),
        ("1 7", '"7" is not key:value'),
        ("1 1 :1", '"1" is not key:value'),
        ("1 qid:3 1:1", '"qid:3" is not key:value'),
        ("1 18446744073709551616:1", 'the key of "18446744073709551616:1" is above 2^64 - 1'),
        ("1 99999999999999999999999:1", "is above 2^64 - 1"),
        ("1 5:1 5:2", "a key is there twice"),
        ("1 7:1 5:2 7:3", "a key is there twice"),
        ("\x01\x02\xff", "is not a finite number"),
    ],
)
def test_a_malformed_line_is_an_error_or_is_skipped_and_counted(line, what, tmp_path):
    text = f"1 3:1\n\n{line}\n0 4:1\n"
    with pytest.raises(DataError) as error:
        prepare(libsvm(tmp_path, text), tmp_path, 0, 1)
    assert str(error.value).startswith(f"{tmp_path}/x.libsvm: line 3: ")
    assert what in str(error.value)
    prepared = prepare(libsvm(tmp_path, text, malformed="skip"), tmp_path, 0, 1)
    assert (prepared.train_rows, prepared.skipped) == (2, 1)
