import msgspec
import pytest

from mpips.dataserver.spec import DataSpec, Hashed

CSV = {"format": "csv", "files": ["x.csv"], "label": "late > 15", "features": {"fields": ["a", ["a", "b"]]}}


def test_a_section_of_the_job_file_becomes_a_spec():
    spec = msgspec.convert(CSV | {"features": {"fields": ["a", ["a", "b"]], "keys": {"hash_bits": 22}}}, DataSpec)
    assert spec.features.names == ["a", "a×b"]
    assert spec.features.keys == Hashed(hash_bits=22)
    assert spec.label_rule[0] == "late"
    assert spec.label_rule[2] == 15.0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"label": None}, "label is missing"),
        ({"label": "late >"}, 'label "late >" is neither a column nor a comparison'),
        ({"label": "late > inf"}, "is neither a column nor a comparison"),
        ({"label": "> 5"}, "is neither a column nor a comparison"),
        ({"features": None}, "features.fields is missing"),
        ({"features": {"fields": ["a", "a"]}}, 'fields: "a" is there twice'),
        ({"features": {"fields": [[]]}}, "length >= 1"),
        ({"features": {"fields": ["a"], "keys": {"hash_bits": 0}}}, ">= 1"),
        ({"features": {"fields": ["a"], "keys": "exact"}}, "Invalid enum value"),
        ({"files": []}, "length >= 1"),
        ({"batch": 0}, ">= 1"),
        ({"test": {"every": 5, "offset": 5}}, "offset must be below every, which is 5; got 5"),
        ({"test": {"every": 5}, "test_files": ["y.csv"]}, "test and test_files exclude each other"),
        ({"colour": 1}, "unknown field `colour`"),
        ({"format": "libsvm"}, 'format "libsvm" has its label at the start of a line'),
        ({"format": "libsvm", "label": None}, 'format "libsvm" has its own keys'),
    ],
)
def test_a_contradiction_is_refused(change, what):
    with pytest.raises(msgspec.ValidationError, match=what):
        msgspec.convert(CSV | change, DataSpec)
