"""The data of one data server: its share of the files as batches, from the text or, later, from the cache."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from mpips.dataserver import criteo, csv, libsvm
from mpips.dataserver.cache import FORMAT, CacheReader, CacheWriter, DamagedError
from mpips.dataserver.delimited import CellReader
from mpips.dataserver.dictionary import Dictionary, DictionaryBuilder
from mpips.dataserver.errors import DataError, cannot_read
from mpips.dataserver.files import find_apart
from mpips.dataserver.libsvm import LibsvmReader
from mpips.dataserver.reader import Faults, Reader
from mpips.dataserver.rows import Rows
from mpips.dataserver.spec import DataSpec, FeatureSpec, Hashed
from mpips.dataserver.text import TextFile
from mpips.dataserver.window import Window

WINDOW_BYTES = 64 << 20  # memory of the rows that are shuffled together
_COUNT = {"csv": csv.count_rows, "libsvm": libsvm.count_rows, "criteo": criteo.count_rows}


class Prepared:
    """The batches of one part in its cache; as `mpips.dataserver.part.Part`."""

    lasting = True

    def __init__(self, cache: CacheReader, rebuild: Callable[[], CacheReader]) -> None:
        self._cache = cache
        self._rebuild = rebuild
        summary = cache.summary
        self.train, self.test = summary.train, summary.test
        self.train_rows, self.test_rows = summary.train_rows, summary.test_rows
        self.skipped, self.features = summary.skipped, summary.features
        self.dictionary: Dictionary | None = cache.dictionary

    def size(self, batch: int) -> int:
        """As `Part.size`."""
        return int(self._cache.sizes[batch])

    def read(self, batch: int, epoch: int, out: NDArray[np.uint8]) -> None:
        """As `Part.read`. A cache that proves to be damaged is built again first, with the same batches."""
        try:
            self._cache.read(batch, out)
        except DamagedError:
            self._cache.close()
            self._cache = self._rebuild()
            self._cache.read(batch, out)

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()


def prepare(spec: DataSpec, base: Path, part: int, parts: int) -> Prepared:
    """Build the cache of one of `parts` data servers, or reuse the one of an earlier run with the same data.

    Files are dealt out to the parts when there are enough, else the chunks of every file. A row is in one part.

    Parameters
    ----------
    spec : DataSpec
    base : Path
        The folder that the paths in `spec` are relative to.
    part, parts : int

    Raises
    ------
    DataError
        A file cannot be read or has a malformed row, the job file names a column that is not there, or the
        cache cannot be written.
    """
    train, test = find_apart(spec.files, spec.test_files, base)
    folder = base / spec.cache if spec.cache else train[0].parent / ".mpips-cache"
    path, fingerprint = _identity(spec, train, test, folder, part, parts)

    def rebuild() -> CacheReader:
        _build(spec, train, test, path, fingerprint, part, parts)
        return CacheReader(path, fingerprint)

    try:
        cache = CacheReader(path, fingerprint)
    except DamagedError:
        cache = rebuild()
    return Prepared(cache, rebuild)


def _identity(
    spec: DataSpec, train: list[Path], test: list[Path], folder: Path, part: int, parts: int
) -> tuple[Path, str]:
    """The cache file of these data, and what must be written in it to be up to date."""
    asked = msgspec.json.encode(
        [
            msgspec.structs.replace(spec, cache=None),
            *(str(path.resolve()) for path in train + test),
            part,
            parts,
        ]
    )
    state: list[int] = []
    for path in train + test:
        try:
            stat = path.stat()
        except OSError as error:
            raise cannot_read(path, error) from error
        state += [stat.st_size, stat.st_mtime_ns]
    name = f"{train[0].name.split('.')[0]}-{hashlib.sha256(asked).hexdigest()[:16]}-{part}of{parts}.h5"
    return folder / name, hashlib.sha256(msgspec.json.encode([FORMAT, asked, state])).hexdigest()


def _build(
    spec: DataSpec, train: list[Path], test: list[Path], path: Path, fingerprint: str, part: int, parts: int
) -> None:
    features = spec.features
    if spec.format == "criteo":
        features = criteo.features_of(features)
    builder = DictionaryBuilder(features.names) if features and features.keys == "dictionary" else None
    windows = {
        False: Window(spec.batch, np.random.default_rng([spec.seed, part]), WINDOW_BYTES),
        True: Window(spec.batch, None, WINDOW_BYTES),
    }
    skipped = 0
    largest = -1
    with CacheWriter(path) as cache:
        for is_test_file, files in ((False, train), (True, test)):
            for rows, malformed in _read(spec, features, files, builder, part, parts):
                skipped += malformed
                if spec.format == "libsvm" and rows.keys.size:
                    largest = max(largest, int(rows.keys.max()))
                is_test = _test_rows(spec, rows, is_test_file)
                for kind, window in windows.items():
                    for batch in window.add(_where(rows, is_test == kind)):
                        cache.append(batch, kind)
        for kind, window in windows.items():
            for batch in window.finish():
                cache.append(batch, kind)
        dictionary = builder.finish() if builder else None
        cache.finish(fingerprint, skipped, _features(features, dictionary, largest), dictionary)


def _features(features: FeatureSpec | None, dictionary: Dictionary | None, largest: int) -> int:
    if dictionary is not None:
        return len(dictionary)
    if features is not None and isinstance(features.keys, Hashed):
        return 1 << features.keys.hash_bits
    return largest + 1


def _test_rows(spec: DataSpec, rows: Rows, is_test_file: bool) -> NDArray[np.bool_]:
    if spec.test is None:
        return np.full(len(rows), is_test_file)
    return np.equal(rows.numbers % spec.test.every, spec.test.offset)


def _where(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    return rows if chosen.all() else rows.take(np.flatnonzero(chosen))


def _read(
    spec: DataSpec,
    features: FeatureSpec | None,
    files: list[Path],
    builder: DictionaryBuilder | None,
    part: int,
    parts: int,
) -> Iterator[tuple[Rows, int]]:
    """The rows of this part, chunk by chunk, with the number of malformed ones."""
    by_file = len(files) >= parts
    for number, path in enumerate(files):
        if by_file and number % parts != part:
            continue
        with TextFile(path, _COUNT[spec.format], header=spec.format == "csv") as file:
            faults, reader = _reader(spec, features, path, file.header, builder)
            well_formed = malformed = 0
            for j, chunk in enumerate(file.chunks()):
                if by_file or j % parts == part:
                    rows, bad = reader.read(chunk)
                    well_formed += len(rows)
                    malformed += bad
                    yield rows, bad
            if malformed and not well_formed:
                raise DataError(f"{path}: none of {malformed} rows is well formed; the first: {faults.first}")


def _reader(
    spec: DataSpec, features: FeatureSpec | None, path: Path, header: str, builder: DictionaryBuilder | None
) -> tuple[Faults, Reader]:
    skip = spec.malformed == "skip"
    if features is None:
        faults = Faults(path, skip, [])
        return faults, LibsvmReader(faults)
    if spec.format == "csv":
        dialect, columns = csv.DIALECT, csv.columns_of(spec, path, header)
    else:
        dialect, columns = criteo.DIALECT, criteo.COLUMNS
    faults = Faults(path, skip, columns.names)
    return faults, CellReader(dialect, columns, features, builder, faults)
