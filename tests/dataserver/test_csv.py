import csv as reference
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpips.dataserver import text as text_module
from mpips.dataserver.errors import DataError
from mpips.dataserver.source import prepare
from mpips.dataserver.spec import Hashed

from .reading import batches, csv, read_all, rows_of, write

CELLS = st.one_of(
    st.sampled_from(["", "a", "b", '"', "a,b", "x\ny", "x\r\ny", "×", " a"]),
    st.text(st.characters(exclude_characters="\0\r", exclude_categories=("Cs",)), max_size=12),
)
QUOTING = st.sampled_from([reference.QUOTE_MINIMAL, reference.QUOTE_ALL])
TABLES = st.lists(st.tuples(CELLS, CELLS, st.integers(-9, 9).map(str)), min_size=1, max_size=30)


def named_rows(spec, folder):
    """Label and the names of the features of every row."""
    prepared = prepare(spec, folder, 0, 1)
    rows = []
    for label, features in (row for batch in batches(prepared) for row in rows_of(batch)):
        ids = prepared.dictionary.ids(np.array([key for key, _ in features], np.uint64))
        rows.append((label, tuple(prepared.dictionary.name(i) for i in ids)))
    return sorted(rows)


@given(table=TABLES, quoting=QUOTING, line_end=st.sampled_from(["\n", "\r\n"]), chunk=st.integers(1, 60))
def test_features_are_those_of_the_csv_module_and_a_dict(table, quoting, line_end, chunk, tmp_path_factory):
    out = io.StringIO()
    writer = reference.writer(out, quoting=quoting, lineterminator=line_end)
    writer.writerow(["first", "se,cond", "y"])
    writer.writerows(table)
    folder = tmp_path_factory.mktemp("csv")
    spec = csv(folder, out.getvalue(), "first", "se,cond", ("se,cond", "first"), label="y > 0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "CHUNK_BYTES", chunk)
        rows = named_rows(spec, folder)
    expected, distinct = [], set()
    for row in reference.DictReader(io.StringIO(out.getvalue(), newline="")):
        first, second = row["first"], row["se,cond"]
        names = f"first={first}", f"se,cond={second}", f"se,cond×first={second}×{first}"
        expected.append((float(int(row["y"]) > 0), names))
        distinct |= {("first", first), ("second", second), ("both", first, second)}
    assert rows == sorted(expected)
    assert prepare(spec, folder, 0, 1).features == len(distinct)


def test_an_empty_cell_is_a_value_of_its_own(tmp_path):
    spec = csv(tmp_path, 'y,a\n1,\n0,""\n1,x\n', "a")
    assert named_rows(spec, tmp_path) == [(0.0, ("a=",)), (1.0, ("a=",)), (1.0, ("a=x",))]


def test_a_byte_order_mark_blank_lines_and_a_missing_last_newline_are_harmless(tmp_path):
    spec = csv(tmp_path, b"\xef\xbb\xbfy,a\r\n\r\n1,u\r\n\n0,v", "a")
    assert named_rows(spec, tmp_path) == [(0.0, ("a=v",)), (1.0, ("a=u",))]


def test_a_quote_inside_an_unquoted_cell_stands_for_itself(tmp_path):
    assert named_rows(csv(tmp_path, "y,a\n1,6'2\"\n", "a"), tmp_path) == [(1.0, ("a=6'2\"",))]


@pytest.mark.parametrize(
    ("label", "expected"),
    [("y > 2", [0, 0, 1]), ("y>=2", [0, 1, 1]), ("y < 2", [1, 0, 0]), ("y <= 2", [1, 1, 0]), ("y == 2.0", [0, 1, 0]),
     ("y != 2", [1, 0, 1]), ("y > -1e0", [1, 1, 1])],
)  # fmt: skip
def test_a_label_is_a_comparison(label, expected, tmp_path):
    spec = csv(tmp_path, "a,y\nr,1\ns,2\nt, 3 \n", "a", label=label)
    rows = named_rows(spec, tmp_path)
    assert [value for value, _ in sorted(rows, key=lambda row: row[1])] == expected


def test_hashed_keys_depend_on_nothing_but_the_bytes_and_stay_below_their_limit(tmp_path):
    spec = csv(tmp_path, "y,a,b\n1,u,v\n0,a long cell of text,ü\n", "a", ("a", "b"), keys=Hashed(hash_bits=10))
    prepared = prepare(spec, tmp_path, 0, 1)
    keys = sorted(key for batch in batches(prepared) for key in batch.keys.tolist())
    assert keys == [223, 367, 444, 513]
    assert (prepared.features, prepared.dictionary) == (1024, None)


def test_columns_may_stand_in_another_order_in_another_file(tmp_path):
    write(tmp_path, "a,y\nu,1\n", "x1.csv")
    spec = csv(tmp_path, "y,z,a\n0,z,u\n", "a", name="x0.csv")
    both = type(spec)(format="csv", files=("x?.csv",), label="y", features=spec.features)
    assert named_rows(both, tmp_path) == [(0.0, ("a=u",)), (1.0, ("a=u",))]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("NA,u", 'column "y": "NA" is not a finite number'),
        (",u", 'column "y": "" is not a finite number'),
        ("nan,u", 'column "y": "nan" is not a finite number'),
        ("1e999,u", 'column "y": "1e999" is not a finite number'),
        ("3,u", 'column "y": the label "3" is none of 1, 0, -1; in csv a comparison helps'),
        ("1", "1 columns, where 2 are expected"),
        ("1,u,v", "3 columns, where 2 are expected"),
        ('1,"u"v', 'column "a": text after the closing quote of "u"'),
    ],
)  # fmt: skip
def test_a_malformed_row_is_an_error_or_is_skipped_and_counted(line, what, tmp_path):
    text = f'y,a\n1,"two ""lines""\n"\n{line}\n0,u\n'
    with pytest.raises(DataError) as error:
        prepare(csv(tmp_path, text, "a"), tmp_path, 0, 1)
    assert str(error.value).startswith(f"{tmp_path}/x.csv: line 4: {what}")
    prepared = prepare(csv(tmp_path, text, "a", malformed="skip"), tmp_path, 0, 1)
    assert (prepared.train_rows, prepared.skipped) == (2, 1)


def test_a_quote_that_is_never_closed_is_told_where_it_begins(tmp_path):
    with pytest.raises(DataError, match=r'line 3: column "a": a quoted cell is never closed: "u\\n0,v'):
        prepare(csv(tmp_path, 'y,a\n1,t\n1,"u\n0,v\n', "a"), tmp_path, 0, 1)


def test_a_column_that_is_not_in_the_header_is_named_with_the_nearest_that_is(tmp_path):
    with pytest.raises(DataError, match=r'x.csv: the header has no column "carier"; did you mean "carrier"\?'):
        prepare(csv(tmp_path, "y,carrier\n1,u\n", "carier"), tmp_path, 0, 1)
    with pytest.raises(DataError, match='the header has no column "delay"; it has: y, carrier'):
        prepare(csv(tmp_path, "y,carrier\n1,u\n", "carrier", label="delay > 5"), tmp_path, 0, 1)


def test_a_column_that_is_twice_in_the_header_is_an_error(tmp_path):
    with pytest.raises(DataError, match='the header has 2 columns "a"'):
        prepare(csv(tmp_path, "y,a,a\n1,u,v\n", "a"), tmp_path, 0, 1)


def test_a_file_of_malformed_rows_only_is_an_error_even_when_they_are_skipped(tmp_path):
    with pytest.raises(DataError, match=r"none of 2 rows is well formed; the first: line 2: .*not a finite number"):
        prepare(csv(tmp_path, "y,a\nno,u\nno,v\n", "a", malformed="skip"), tmp_path, 0, 1)


def test_numbers_are_read_as_python_reads_them(tmp_path):
    numbers = ["1", "-2.5", "1e-3", "+.5", "123456789.125", "7E2", "0.1", "1e22", "9007199254740991e-22"]
    for number in numbers:
        below, above = math.nextafter(float(number), -math.inf), math.nextafter(float(number), math.inf)
        text = "y,a\n" + f"{number},u\n"
        for threshold, expected in ((below, 1.0), (float(number), 0.0), (above, 0.0)):
            assert named_rows(csv(tmp_path, text, "a", label=f"y > {threshold!r}"), tmp_path)[0][0] == expected
    assert read_all(csv(tmp_path, "y,a\n1,u\n", "a"), tmp_path)[1] == []
