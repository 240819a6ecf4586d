"""Speed of one data server, on one thread: libsvm text to rows, beside reading and counting lines.

    python benchmarks/parse.py [--file clicks.libsvm] [--rounds 5]

Prints one JSON line. `limit` is the speed at which the file is read in chunks and its newlines are counted by
`bytes.count`, measured in turn with the parsing in the same run. Both are medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from zipf import write

from mpips.dataserver.libsvm import LibsvmReader, count_rows
from mpips.dataserver.reader import Faults
from mpips.dataserver.text import CHUNK_BYTES, TextFile


def parse(path: Path) -> int:
    """Parse a file as a data server does; its number of rows."""
    reader = LibsvmReader(Faults(path, skip=False, columns=[]))
    with TextFile(path, count_rows, header=False) as text:
        return sum(len(reader.read(chunk)[0]) for chunk in text.chunks())


def count_lines(path: Path) -> int:
    """Read a file and count its lines."""
    with path.open("rb", buffering=0) as file:
        return sum(data.count(b"\n") for data in iter(lambda: file.read(CHUNK_BYTES), b""))


def main() -> None:
    """Measure, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--file", type=Path, help="default: one million rows by zipf.py, in a temporary folder")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder, "zipf.libsvm")
        if given.file is None:
            write(path, 1_000_000, 40, 22)
        megabytes = path.stat().st_size / 1e6
        speed: dict[str, list[float]] = {"parse": [], "count_lines": []}
        parse(path)  # compiles
        for _ in range(given.rounds):
            for function in (parse, count_lines):
                start = time.perf_counter()
                rows = function(path)
                speed[function.__name__].append(megabytes / (time.perf_counter() - start))
    value, limit = statistics.median(speed["parse"]), statistics.median(speed["count_lines"])
    result = {
        "name": "parse-libsvm",
        "value": round(value, 1),
        "unit": "MB/s",
        "limit": round(limit, 1),
        "ratio": round(value / limit, 3),
        "rows": rows,
        "megabytes": round(megabytes, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
