"""The delay: time to the same objective under fixed delays, and under the one that the system chooses.

The online solver runs inputs/flights-lr.toml with one worker that takes three times as long to compute, in the manner
of Li et al. 2014, Fig. 13. `--row` is the time that computing on a row takes at least: the surplus is slept, so that
five ranks on two cores are as if each worker had a core of its own. With `--row 0` they are as they are. The objective
is the mean loss of all rows so far, each row's from before it was learned from.

The batch solver runs inputs/flights-l1.toml as it is; the objective is its own, the time is from its first pass on.

python benchmarks/delay.py [--solver block] [--times 3] [--row 3e-6] [--rounds 5] [--delays 0 1 2 auto] [--plot x.svg]
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import TIMEOUT, median, report

from mpips.cli.cleanup import Scratch
from mpips.cli.launch import command, environment, find

ROOT = Path(__file__).parent.parent
RANKS = 5
PASSES = 4  # of the online solver
TARGET = {"online": 0.43, "block": 0.3977}
DELAYS = {"online": ["0", "1", "2", "4", "8", "16", "auto"], "block": ["0", "1", "2", "4", "auto"]}
PARTS = ("computing", "waiting for the delay", "waiting for a batch", "other")


def launch(program: list[str]) -> str:
    """The output of a Python program under mpirun."""
    scratch = Scratch()
    try:
        line = command(find(), [sys.executable, *program], ranks=RANKS, hosts=None, extra=(), scratch=scratch)
        done = subprocess.run(
            line, env=environment(RANKS, None, scratch), timeout=TIMEOUT, capture_output=True, text=True, check=False
        )
    finally:
        scratch.clear()
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    return done.stdout


def crossing(curve: list[tuple[float, float, float]], target: float) -> tuple[float, float]:
    """Seconds, and work done, when a falling objective reaches the target: ``(seconds, work, objective)`` in order."""
    for (time, work, above), (later, more, below) in pairwise(curve):
        if below <= target < above:
            share = (above - target) / (above - below)
            return time + share * (later - time), work + share * (more - work)
    return math.inf, math.inf


def run(solver: str, delay: str, times: float, row: float, folder: Path) -> dict[str, Any]:
    """One run: seconds and iterations to the objective, the shares of the workers' time, and their idle share."""
    sets = [f"checkpoint.folder={folder}", f"consistency.delay={delay}"]
    if solver == "online":
        sets += [f"algorithm.passes={PASSES}", "algorithm.evaluate_every=0"]
        program = [str(ROOT / "benchmarks/slow.py"), str(ROOT / "inputs/flights-lr.toml")]
        program += ["--times", str(times), "--row", str(row)]
    else:
        program = ["-m", "mpips", str(ROOT / "inputs/flights-l1.toml")]
    output = launch([*program, *(word for item in sets for word in ("--set", item))])
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    reports = [event for event in events if event["event"] == "report"]
    begin = reports[0]["time"]
    if solver == "online":
        batches = math.ceil(result["examples"] / PASSES / 1024)
        curve, total = [], 0.0
        for event in sorted((event for event in events if event["event"] == "epoch"), key=lambda event: event["epoch"]):
            total += event["loss"]
            done = event["epoch"]
            curve.append((event["time"] - begin, done * batches, total / done))
        workers = json.loads(next(line for line in output.splitlines() if line.startswith("[")))
    else:
        curve = [(event["time"] - begin, event["pass"], event["objective"]) for event in reports]
        workers = []
    seconds, work = crossing(curve, TARGET[solver])
    idle = list(result["idle"].values())
    return {"seconds": seconds, "iterations": work, "idle": sum(idle) / len(idle), "shares": shares(workers)}


def shares(workers: list[dict[str, float]]) -> list[float]:
    """The parts of the workers' time, as shares of it."""
    if not workers:
        return []
    all_ = sum(worker["all"] for worker in workers)
    found = [sum(worker[name] for worker in workers) / all_ for name in ("computing", "a workload", "a batch")]
    return [*found, 1.0 - sum(found)]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the runs with one delay, seconds split as the workers' time was."""
    reached = [run for run in runs if run["seconds"] < math.inf]
    found: dict[str, Any] = {"reached": len(reached), "idle": round(median([run["idle"] for run in runs]), 4)}
    if reached == runs:
        seconds = [run["seconds"] for run in runs]
        found["seconds"] = round(median(seconds), 3)
        found["spread"] = [round(min(seconds), 3), round(max(seconds), 3)]
        found["iterations"] = round(median([run["iterations"] for run in runs]), 1)
    for part, name in enumerate(PARTS if runs[0]["shares"] else ()):
        found[name] = round(median([run["shares"][part] for run in runs]), 4)
    return found


def draw(table: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """Bars of the time to the objective by what the workers did, and the iterations as a line."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from mpips.cli.pictures import COLOURS, STYLE

    with rc_context({**STYLE, "axes.xmargin": 0.05}):
        picture = Figure(figsize=(5.4, 3.0), layout="constrained")
        axes = picture.add_subplot()
        bottom = [0.0] * len(table)
        colours = [COLOURS[0], COLOURS[1], COLOURS[5], "#BBBBBB"]
        for name, colour in zip(PARTS, colours, strict=True):
            heights = [row["seconds"] * row[name] for row in table.values()]
            axes.bar(list(table), heights, 0.6, bottom, color=colour, label=name)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        axes.set_title(title)
        axes.set_xlabel("delay (batches that may be unfinished when the next is handed out)")
        axes.set_ylabel("seconds")
        right = axes.twinx()
        iterations = [row["iterations"] for row in table.values()]
        right.plot(list(table), iterations, "o-", color="#333333", label="batches (right)")
        right.set_ylim(0.0, 1.4 * max(iterations))
        right.grid(visible=False)
        picture.legend(loc="outside lower center", ncols=3)
        picture.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


def main() -> None:
    """Measure the delays in turn, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--solver", choices=["online", "block"], default="online")
    arguments.add_argument("--times", type=float, default=3.0, help="how many times longer the slow worker computes")
    arguments.add_argument("--row", type=float, default=3e-6, help="seconds that computing on a row takes at least")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--delays", nargs="+")
    arguments.add_argument("--plot", type=Path, help="where to draw the online solver's sweep")
    given = arguments.parse_args()
    delays = given.delays or DELAYS[given.solver]
    runs: dict[str, list[dict[str, Any]]] = {delay: [] for delay in delays}
    with tempfile.TemporaryDirectory() as folder:
        run(given.solver, "16", given.times, given.row, Path(folder, "run"))  # fills the caches
        for number in range(given.rounds):
            for delay in delays[number % len(delays) :] + delays[: number % len(delays)]:
                runs[delay].append(run(given.solver, delay, given.times, given.row, Path(folder, "run")))
    table = {delay: summary(of_delay) for delay, of_delay in runs.items()}
    best = min((delay for delay in delays if delay != "auto"), key=lambda delay: table[delay].get("seconds", math.inf))
    within = [auto["seconds"] / fixed["seconds"] for auto, fixed in zip(runs["auto"], runs[best], strict=True)]
    slow = f", one worker {given.times:g} times slower" if given.solver == "online" and given.times > 1.0 else ""
    report(
        f"{given.solver} solver{slow}: seconds to an objective of {TARGET[given.solver]} with delay auto",
        table["auto"]["seconds"],
        "s",
        table[best]["seconds"],
        f"the best fixed delay, {best}",
        False,
        ratio_within_rounds=round(median(within), 3),
        rounds=given.rounds,
        row=given.row,
        delays=table,
    )
    if given.plot is not None:
        draw(table, f"Time to a mean loss of {TARGET['online']}{slow}", given.plot)


if __name__ == "__main__":
    main()
