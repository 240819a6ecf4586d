"""The names of features: an exact dictionary from 64-bit keys to dense ids 0..n-1 and to readable names."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mpips.dataserver.errors import DataError
from mpips.kernels.features import add_keys, enter_keys, join_cells

_MAGIC = int.from_bytes(b"mpipsD01", "little")
_ENCODING = ("utf-8", "surrogateescape")  # a cell may hold any bytes


def _clash(one: str, other: str) -> DataError:
    return DataError(
        f'the features "{one}" and "{other}" have the same 64-bit key: change the order of data.features.fields, '
        "or hash the features with data.features.keys = { hash_bits = 30 }"
    )


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Features, sorted by key; the id of a feature is its position.

    Attributes
    ----------
    fields : tuple of str
        The names of the fields, such as "carrier×flight".
    keys : uint64[n]
        field << 56 | a 56-bit hash of its cells, increasing: a field's features are neighbours.
    checks : uint64[n]
        Another hash: two names with one key would differ in it.
    offsets : int64[n + 1]
        The name of feature i is text[offsets[i]:offsets[i + 1]].
    text : uint8[…]
    """

    fields: tuple[str, ...]
    keys: NDArray[np.uint64]
    checks: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    text: NDArray[np.uint8]

    def __len__(self) -> int:
        return self.keys.size

    def name(self, feature: int) -> str:
        """The name of a feature, given its id: "carrier×flight=UA×1545"."""
        return self._bytes(feature).decode(*_ENCODING)

    def ids(self, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The ids of keys (uint64[m]), uint64[m]; sorted keys have sorted ids.

        Raises
        ------
        KeyError
            A key is not in the dictionary.
        """
        ids = np.searchsorted(self.keys, keys)
        if keys.size and (not len(self) or (self.keys[np.minimum(ids, len(self) - 1)] != keys).any()):
            raise KeyError("a key that is not in the dictionary")
        return ids.astype(np.uint64)

    def find(self, names: Iterable[str]) -> dict[str, int]:
        """The ids of features, given their names; of those that are in the dictionary."""
        found, text = dict[str, int](), b""
        for name in names:
            text = text or self.text.tobytes()
            wanted = name.encode(*_ENCODING)
            at = text.find(wanted)
            while 0 <= at < len(text):
                feature = int(np.searchsorted(self.offsets, at))
                if self.offsets[feature] == at and self._bytes(feature) == wanted:
                    found[name] = feature
                    break
                at = text.find(wanted, at + 1)
        return found

    @property
    def blocks(self) -> list[tuple[str, int, int]]:
        """For every field its name, and its first id and last id + 1."""
        starts = np.searchsorted(self.keys >> np.uint64(56), np.arange(len(self.fields) + 1)).tolist()
        return list(zip(self.fields, starts[:-1], starts[1:], strict=True))

    @property
    def nbytes(self) -> int:
        """Size of the dictionary as one blob."""
        return sum(part.nbytes for part in self._packed())

    def pack_into(self, out: NDArray[np.uint8]) -> None:
        """Write the dictionary as one blob: `out` is uint8[nbytes]."""
        np.concatenate([part.view(np.uint8) for part in self._packed()], out=out)

    def pack(self) -> NDArray[np.uint8]:
        """The dictionary as one blob (uint8)."""
        out = np.empty(self.nbytes, np.uint8)
        self.pack_into(out)
        return out

    def _packed(self) -> list[NDArray[Any]]:
        fields = "\n".join(self.fields).encode()
        header = np.array([_MAGIC, len(self), self.text.size, len(fields)], "<u8")
        return [header, self.keys, self.checks, self.offsets, self.text, np.frombuffer(fields, np.uint8)]

    @staticmethod
    def unpack(blob: NDArray[np.uint8]) -> "Dictionary":
        """The dictionary of a blob (uint8, contiguous); its arrays are views.

        Raises
        ------
        ValueError
            The bytes are not those of a dictionary.
        """
        magic, n, text, fields = blob[:32].view("<u8").tolist() if blob.size >= 32 else (0, 0, 0, 0)
        stops = np.cumsum([32, 8 * n, 8 * n, 8 * (n + 1), text, fields]).tolist()
        if magic != _MAGIC or stops[-1] != blob.size:
            raise ValueError("these bytes are not a dictionary")
        parts = [blob[start:stop] for start, stop in itertools.pairwise(stops)]
        names = tuple(parts[4].tobytes().decode().split("\n"))
        return Dictionary(names, parts[0].view("<u8"), parts[1].view("<u8"), parts[2].view("<i8"), parts[3])

    @staticmethod
    def merge(dictionaries: Sequence["Dictionary"]) -> "Dictionary":
        """The union of dictionaries of the same fields; there is at least one.

        Raises
        ------
        DataError
            Two different names have the same key.
        """
        keys = np.concatenate([each.keys for each in dictionaries])
        checks = np.concatenate([each.checks for each in dictionaries])
        starts = np.cumsum([0] + [each.text.size for each in dictionaries])
        text = np.concatenate([each.text for each in dictionaries])
        begins = np.concatenate(
            [each.offsets[:-1] + start for each, start in zip(dictionaries, starts[:-1], strict=True)]
        )
        sizes = np.concatenate([np.diff(each.offsets) for each in dictionaries])
        order = np.argsort(keys, kind="stable")
        again = keys[order[1:]] == keys[order[:-1]]
        clashes = np.flatnonzero(again & (checks[order[1:]] != checks[order[:-1]]))
        if clashes.size:
            pair = order[clashes[0] : clashes[0] + 2]
            names = [text[begins[i] : begins[i] + sizes[i]].tobytes().decode(*_ENCODING) for i in pair]
            raise _clash(*names)
        kept = order[np.concatenate([np.ones(min(1, keys.size), np.bool_), ~again])]
        offsets = np.concatenate([[0], np.cumsum(sizes[kept])])
        places = np.arange(offsets[-1]) + np.repeat(begins[kept] - offsets[:-1], sizes[kept])
        return Dictionary(dictionaries[0].fields, keys[kept], checks[kept], offsets, text[places])

    def save(self, path: Path) -> None:
        """Write an HDF5 file with the datasets keys, checks and names, and the attribute fields."""
        with h5py.File(path, "w") as file:
            file.attrs["fields"] = list(self.fields)
            file["keys"] = self.keys
            file["checks"] = self.checks
            file.create_dataset("names", dtype=h5py.string_dtype(), data=[self._bytes(i) for i in range(len(self))])

    @staticmethod
    def load(path: Path) -> "Dictionary":
        """Read what `save` has written."""
        with h5py.File(path, "r") as file:
            names: list[bytes] = file["names"][()].tolist()
            offsets = np.concatenate([[0], np.cumsum([len(name) for name in names], dtype=np.int64)])
            text = np.frombuffer(b"".join(names), np.uint8)
            return Dictionary(tuple(file.attrs["fields"]), file["keys"][()], file["checks"][()], offsets, text)

    def _bytes(self, feature: int) -> bytes:
        return self.text[self.offsets[feature] : self.offsets[feature + 1]].tobytes()


def _grown(array: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    larger = np.empty(size, np.uint64)
    larger[: array.size] = array
    return larger


class DictionaryBuilder:
    """Collects the features of a data server, with their names, as they are read."""

    def __init__(self, fields: Sequence[str]) -> None:
        labels = [f"{field}=".encode() for field in fields]
        self._fields = tuple(fields)
        self._labels = np.frombuffer(b"".join(labels), np.uint8)
        self._label_ptr = np.cumsum([0] + [len(label) for label in labels])
        self._slots = np.full(1 << 16, -1, np.int32)
        self._keys = np.empty(1 << 15, np.uint64)
        self._checks = np.empty(1 << 15, np.uint64)
        self._count = 0
        self._sizes: list[NDArray[np.int64]] = []
        self._texts: list[NDArray[np.uint8]] = []

    def add(
        self,
        keys: NDArray[np.uint64],
        checks: NDArray[np.uint64],
        text: NDArray[np.uint8],
        spans: NDArray[np.int32],
        slots: NDArray[np.int32],
        slot_ptr: NDArray[np.int32],
    ) -> None:
        """Add the features of some rows: keys and checks as `hash_cells` made them of the other arguments.

        Raises
        ------
        DataError
            Two different names have the same key.
        """
        self._make_room(keys.size)
        fresh = np.empty(keys.size, np.int64)
        count, clash = add_keys(keys, checks, self._slots, self._keys, self._checks, self._count, fresh)
        fresh = fresh[: count - self._count]
        self._count = count
        self._collect(fresh, text, spans, slots, slot_ptr)
        if clash >= 0:
            known = self.finish()
            self._collect(np.array([clash]), text, spans, slots, slot_ptr)
            other = self._texts[-1].tobytes().decode(*_ENCODING)
            raise _clash(known.name(int(known.ids(keys[clash : clash + 1])[0])), other)

    def finish(self) -> Dictionary:
        """The dictionary of all features that were added."""
        sizes = np.concatenate([np.empty(0, np.int64), *self._sizes])
        text = np.concatenate([np.empty(0, np.uint8), *self._texts])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        keys, checks = self._keys[: self._count], self._checks[: self._count]
        return Dictionary.merge([Dictionary(self._fields, keys, checks, offsets, text)])

    def _make_room(self, more: int) -> None:
        needed = self._count + more
        if needed > self._keys.size:
            self._keys = _grown(self._keys, 2 * needed)
            self._checks = _grown(self._checks, 2 * needed)
        if 2 * needed > self._slots.size:
            self._slots = np.full(1 << (2 * needed).bit_length(), -1, np.int32)
            enter_keys(self._slots, self._keys[: self._count])

    def _collect(
        self,
        fresh: NDArray[np.int64],
        text: NDArray[np.uint8],
        spans: NDArray[np.int32],
        slots: NDArray[np.int32],
        slot_ptr: NDArray[np.int32],
    ) -> None:
        names = text, spans, slots, slot_ptr, self._labels, self._label_ptr, fresh
        offsets = np.empty(fresh.size + 1, np.int64)
        join_cells(*names, offsets, np.empty(0, np.uint8))
        out = np.empty(int(offsets[-1]), np.uint8)
        join_cells(*names, offsets, out)
        self._sizes.append(np.diff(offsets))
        self._texts.append(out)
