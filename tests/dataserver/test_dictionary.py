import h5py
import numpy as np
import pytest

from mpips.dataserver.dictionary import Dictionary, DictionaryBuilder
from mpips.dataserver.errors import DataError
from mpips.dataserver.source import prepare

from .reading import csv


def dictionary_of(folder, *cells):
    text = "y,carrier,flight\n" + "".join(f"1,{cell},{flight}\n" for cell, flight in cells)
    return prepare(csv(folder, text, "carrier", ("carrier", "flight")), folder, 0, 1).dictionary


@pytest.fixture
def dictionary(tmp_path):
    return dictionary_of(tmp_path, ("UA", 1545), ("AA", 3), ("UA", 7), ("", ""), ("Übersee", "×"))


def names(dictionary):
    return {dictionary.name(i) for i in range(len(dictionary))}


def same(one, other):
    return one.fields == other.fields and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("keys", "checks", "offsets", "text")
    )


def test_features_have_names(dictionary):
    assert names(dictionary) == {
        "carrier=UA", "carrier=AA", "carrier=", "carrier=Übersee", "carrier×flight=UA×1545", "carrier×flight=AA×3",
        "carrier×flight=UA×7", "carrier×flight=×", "carrier×flight=Übersee××",
    }  # fmt: skip


def test_the_features_of_a_field_are_neighbours(dictionary):
    assert dictionary.blocks == [("carrier", 0, 4), ("carrier×flight", 4, 9)]
    for field, low, high in dictionary.blocks:
        assert all(dictionary.name(i).startswith(f"{field}=") for i in range(low, high))


def test_a_feature_is_found_by_its_name(dictionary):
    known = {dictionary.name(i): i for i in range(len(dictionary))}
    assert dictionary.find(known) == known
    assert dictionary.find(["carrier=U", "arrier=UA", "UA", "", "carrier=UA"]) == {"carrier=UA": known["carrier=UA"]}
    assert DictionaryBuilder(dictionary.fields).finish().find(["carrier=UA"]) == {}


def test_ids_are_positions_among_the_sorted_keys(dictionary):
    np.testing.assert_array_equal(dictionary.ids(dictionary.keys), np.arange(9))
    assert dictionary.ids(dictionary.keys[[3, 3, 0]]).tolist() == [3, 3, 0]
    assert dictionary.ids(dictionary.keys[:0]).size == 0
    with pytest.raises(KeyError):
        dictionary.ids(np.array([5], np.uint64))
    with pytest.raises(KeyError):
        dictionary.ids(np.array([2**64 - 1], np.uint64))


def test_merging_is_as_reading_all_at_once(tmp_path):
    cells = [(f"carrier {i % 7}", i % 13) for i in range(100)]
    parts = [dictionary_of(tmp_path, *cells[i::3]) for i in range(3)]
    whole = dictionary_of(tmp_path, *cells)
    merged = Dictionary.merge(parts)
    np.testing.assert_array_equal(merged.keys, whole.keys)
    assert [merged.name(i) for i in range(len(merged))] == [whole.name(i) for i in range(len(whole))]
    assert same(Dictionary.merge([merged, merged]), merged)


def test_an_empty_dictionary_merges(dictionary):
    empty = DictionaryBuilder(dictionary.fields).finish()
    assert len(empty) == 0
    assert same(Dictionary.merge([empty, dictionary]), dictionary)
    assert same(Dictionary.unpack(empty.pack()), empty)
    assert empty.blocks == [("carrier", 0, 0), ("carrier×flight", 0, 0)]


def test_two_names_with_one_key_are_an_error_when_dictionaries_merge(tmp_path):
    one, other = dictionary_of(tmp_path, ("UA", 1)), dictionary_of(tmp_path, ("AA", 1))
    clash = Dictionary(other.fields, one.keys, other.checks, other.offsets, other.text)
    with pytest.raises(DataError, match='"carrier=UA" and "carrier=AA" have the same 64-bit key'):
        Dictionary.merge([one, clash])


def test_two_names_with_one_key_are_an_error_when_they_are_read():
    text = np.frombuffer(b"UA,AA\n", np.uint8)
    spans = np.array([[[0, 2]], [[3, 5]]], np.int32)
    builder = DictionaryBuilder(["carrier"])
    with pytest.raises(DataError, match='"carrier=UA" and "carrier=AA" have the same 64-bit key'):
        builder.add(
            np.array([7, 7], np.uint64), np.array([1, 2], np.uint64), text, spans,
            np.array([0], np.int32), np.array([0, 1], np.int32),
        )  # fmt: skip


def test_a_dictionary_grows_to_any_size(tmp_path):
    dictionary = dictionary_of(tmp_path, *((f"c{i}", f"f{i}") for i in range(60_000)))
    assert len(dictionary) == 120_000
    assert names(dictionary) >= {"carrier=c59999", "carrier×flight=c123×f123"}


def test_pack_and_save_keep_everything(dictionary, tmp_path):
    assert same(Dictionary.unpack(dictionary.pack()), dictionary)
    dictionary.save(tmp_path / "names.h5")
    assert same(Dictionary.load(tmp_path / "names.h5"), dictionary)
    with h5py.File(tmp_path / "names.h5") as file:
        assert set(file["names"].asstr()[()]) == names(dictionary)


def test_names_need_not_be_utf8(tmp_path):
    spec = csv(tmp_path, b"y,a\n1,\xff\xfe\n", "a")
    dictionary = prepare(spec, tmp_path, 0, 1).dictionary
    dictionary.save(tmp_path / "names.h5")
    assert same(Dictionary.load(tmp_path / "names.h5"), dictionary)
    assert dictionary.name(0).encode("utf-8", "surrogateescape") == b"a=\xff\xfe"


def test_bytes_that_are_no_dictionary_are_refused(dictionary):
    with pytest.raises(ValueError, match="not a dictionary"):
        Dictionary.unpack(dictionary.pack()[:-1])
    with pytest.raises(ValueError, match="not a dictionary"):
        Dictionary.unpack(np.zeros(10, np.uint8))
