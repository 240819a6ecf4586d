"""An epoch that is over when 75 % of its batches are done, against one that waits for the last: time, and the quality.

Source: Chilimbi et al. 2014, section 2.2. inputs/flights-lr.toml is learned with an evaluation after every epoch, which
waits for the epoch before it, and one of the two workers takes several times as long to compute (`slow.py`, as in
`delay.py`, where `--row` is explained). The number of epochs is the same. The time is from when all workers are ready
to the last evaluation. What takes a worker more than three times as long as usual is given to another anyhow; so the
default is three times.

python benchmarks/stragglers.py [--share 0.75] [--times 3] [--row 3e-6] [--passes 5] [--rounds 5]
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from delay import ROOT, launch
from harness import medians, report


def run(share: float, times: float, row: float, passes: int, folder: Path) -> dict[str, float]:
    """One run: its seconds, and what it came to."""
    values = {
        "checkpoint.folder": folder,
        "algorithm.passes": passes,
        "algorithm.evaluate_every": 1,
        "algorithm.epoch_share": share,
    }
    program = [str(ROOT / "benchmarks/slow.py"), str(ROOT / "inputs/flights-lr.toml")]
    program += ["--times", str(times), "--row", str(row)]
    launch([*program, *(word for name, value in values.items() for word in ("--set", f"{name}={value}"))])
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    ready = next(event["time"] for event in events if event["event"] == "report")
    last = [event["time"] for event in events if event["event"] == "evaluation"][-1]
    found = {name: result["metrics"][name] for name in ("auc", "logloss")}
    return {"seconds": last - ready, "rows_per_pass": result["examples"] / passes, "idle": idle(result), **found}


def idle(result: dict[str, Any]) -> float:
    """The share of its time that a worker has waited."""
    shares = list(result["idle"].values())
    return sum(shares) / len(shares)


def main() -> None:
    """Measure both in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--share", type=float, default=0.75, help="of an epoch's batches that are waited for")
    arguments.add_argument("--times", type=float, default=3.0, help="how many times longer the slow worker computes")
    arguments.add_argument("--row", type=float, default=3e-6, help="seconds that computing on a row takes at least")
    arguments.add_argument("--passes", type=int, default=5)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    runs: dict[float, list[dict[str, float]]] = {1.0: [], given.share: []}
    with tempfile.TemporaryDirectory() as folder:
        run(1.0, given.times, given.row, 1, Path(folder, "run"))  # fills the caches
        for number in range(given.rounds):
            for share in sorted(runs, reverse=number % 2 == 0):
                runs[share].append(run(share, given.times, given.row, given.passes, Path(folder, "run")))
    table = {f"{share:g}": medians(of_share) for share, of_share in runs.items()}
    whole, part = table["1"], table[f"{given.share:g}"]
    report(
        f"{given.passes} epochs, {100 * given.share:g} % of each waited for, one worker {given.times:g} times slower",
        part["seconds"],
        "s",
        whole["seconds"],
        "all is waited for",
        False,
        auc_less=round(whole["auc"] - part["auc"], 4),
        rounds=given.rounds,
        row=given.row,
        shares=table,
    )


if __name__ == "__main__":
    main()
