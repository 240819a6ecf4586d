import math

import numpy as np
import pytest

from mpips.dataserver.errors import DataError
from mpips.dataserver.source import prepare
from mpips.dataserver.spec import DataSpec, FeatureSpec, Hashed

from .reading import batches, write


def line(label="1", integers=("",) * 13, categories=("",) * 26):
    return "\t".join([label, *map(str, integers), *categories]) + "\n"


def spec_of(folder, text, **settings):
    write(folder, text, "day.tsv.gz")
    return DataSpec(format="criteo", files=("day.tsv.gz",), **settings)


def test_a_row_has_39_features_and_a_missing_cell_is_one(tmp_path):
    categories = [f"{i:08x}" for i in range(26)]
    prepared = prepare(spec_of(tmp_path, line("0", range(13), categories) + line()), tmp_path, 0, 1)
    (batch,) = batches(prepared)
    assert np.diff(batch.indptr).tolist() == [39, 39]
    assert sorted(batch.labels.tolist()) == [0.0, 1.0]
    names = {prepared.dictionary.name(i) for i in range(prepared.features)}
    assert len(names) == prepared.features == 78
    assert {"C1=", "C26=", "I1=", "I1=0", "C1=00000000", "C26=00000019"} <= names


@pytest.mark.parametrize("value", ["-12", "-0", "0", "1", "2", "3", "9", "10", "0017", "1000", "123456789012345678"])
def test_a_large_integer_becomes_a_bucket(value, tmp_path):
    features = FeatureSpec(fields=("I2",))
    integers = ["", value] + [""] * 11
    prepared = prepare(spec_of(tmp_path, line("1", integers), features=features), tmp_path, 0, 1)
    number = int(value)
    bucket = 2 + math.floor(math.log(number) ** 2) if number > 2 else number
    assert prepared.dictionary.name(0) == f"I2={bucket}"


def test_features_may_be_crossed_and_hashed(tmp_path):
    features = FeatureSpec(fields=("C1", ("C1", "I1")), keys=Hashed(hash_bits=8))
    prepared = prepare(spec_of(tmp_path, line(), features=features), tmp_path, 0, 1)
    assert prepared.features == 256
    assert batches(prepared)[0].indptr.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (line("1", ["x"] + [""] * 12), 'line 2: column "I1": "x" is not an integer'),
        (line("1", ["1.5"] + [""] * 12), '"1.5" is not an integer'),
        (line("1", ["-"] + [""] * 12), '"-" is not an integer'),
        (line("1", ["1" * 19] + [""] * 12), "is not an integer"),
        (line(""), 'column "label": "" is not a finite number'),
        ("1\t2\t3\n", "3 columns, where 40 are expected"),
    ],
)
def test_a_malformed_row_is_an_error_or_is_skipped_and_counted(text, what, tmp_path):
    with pytest.raises(DataError, match=r"day.tsv.gz: line 2: ") as error:
        prepare(spec_of(tmp_path, line() + text), tmp_path, 0, 1)
    assert what in str(error.value)
    assert prepare(spec_of(tmp_path, line() + text, malformed="skip"), tmp_path, 0, 1).skipped == 1


def test_a_feature_that_the_format_does_not_have_is_named_with_the_nearest(tmp_path):
    spec = spec_of(tmp_path, line(), features=FeatureSpec(fields=("C1", "I99")))
    with pytest.raises(DataError, match='the criteo format has no "I99"; did you mean "I9"'):
        prepare(spec, tmp_path, 0, 1)
