"""Whether a long run survives: a job on the flights data whose ranks are killed again and again.

`mpips run` trains as inputs/flights-lr.toml does, and beside it adds 1 for every feature of every row that is trained
on to a table of counts, which must be exact in the end. Every few seconds a random rank, whatever its role, is killed
(SIGKILL), sometimes two at once, as long as what is left can make up for it, until the spares are nearly used up; then
the job goes on undisturbed. Before it an undisturbed one tells how many epochs fit into the time and what each feature
counts, after it another what the model should be worth.

python benchmarks/endurance.py [--minutes 10] [--every 4] [--spares 24] [--seed 1]
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from harness import report
from jobs import Job

from mpips.checkpoint import Generation, generations
from mpips.cli.recoveries import Recoveries, Recovery

PROGRAM = """
import numpy as np
from mpips.algorithms import linear
from mpips.algorithms.linear.online import LogisticRegression


class Counting(LogisticRegression):
    def __init__(self, weights, counts):
        super().__init__(weights)
        self._counts = counts

    def train(self, batch):
        loss = super().train(batch)
        self._counts.push(batch.keys, np.bincount(batch.indices, minlength=batch.keys.size).astype(np.float64))
        return loss


linear.train = lambda worker, table: worker.train(Counting(worker.table(table), worker.table("counts")))
"""
COUNTS = {"kind": "dense", "rows": "features", "dtype": "float64", "rule": {"name": "add"}}
SETTINGS = {
    "roles.servers": 3,
    "roles.data_servers": 2,
    "roles.workers": 2,
    "algorithm.evaluate_every": 0,
    "checkpoint.every": 5,
}
JOB = Path(__file__).parent.parent / "inputs" / "flights-lr.toml"
FIRST_PASSES = 4
LEFT = 1  # spares that are not used up
TOGETHER = 0.25  # of the kills are of two ranks at once
START_SECONDS, WHOLE_SECONDS = 180.0, 60.0
SHARE = 0.85  # of the undisturbed speed
WANTED = 1.0  # seconds, the worst time until what waited goes on


class Endurance:
    """A job, and what was killed of it.

    Attributes
    ----------
    killed : how many ranks, by role.
    trouble : what went wrong, "" as long as nothing has.
    """

    def __init__(self, job: Job, choose: random.Random) -> None:
        self.killed: Counter[str] = Counter()
        self.trouble = ""
        self._job = job
        self._choose = choose

    def recoveries(self) -> list[Recovery]:
        """All so far."""
        return Recoveries(self._job.events).all()

    def strike(self) -> bool:
        """Kill a rank or two, and wait until nothing is missing any more; False when there are no spares for it."""
        ranks = self._job.ranks()
        spares = [entry for entry in ranks if entry["role"] == "spare"]
        roles = self._choose.choices(
            sorted({entry["role"] for entry in ranks}), k=1 + (self._choose.random() < TOGETHER)
        )
        victims = [self._choose.choice([entry for entry in ranks if entry["role"] == role]) for role in roles]
        if len(spares) - len(victims) < LEFT:
            return False
        if len({entry["rank"] for entry in victims}) < len(victims) or not may_die(victims):
            return self.strike()
        for entry in victims:
            os.kill(entry["pid"], signal.SIGKILL)
            self.killed[entry["role"]] += 1
        print(f"killed {', '.join(str((entry['role'], entry['rank'])) for entry in victims)}", file=sys.stderr)

        def whole() -> bool:
            found = self.recoveries()
            return len(found) >= self.killed.total() and all(recovery.is_whole for recovery in found)

        if not self._job.until(whole, WHOLE_SECONDS):
            self.trouble = f"not made up for: {[str(each) for each in self.recoveries() if not each.is_whole]}"
        return not self.trouble


def may_die(victims: list[dict[str, Any]]) -> bool:
    """Whether a job can do without these at once: with one server of them at most, and not with the scheduler and its
    standby.
    """
    roles = [entry["role"] for entry in victims]
    following = "scheduler" in roles and any(entry["standby"] for entry in victims)
    return roles.count("server") < 2 and not following


def counts_of(job: Job) -> np.ndarray[Any, Any]:
    """The table of counts in the last checkpoint."""
    with Generation(generations(job.run)[0]) as generation:
        return np.asarray(generation.dense("counts", 0, generation.tables["counts"].rows)[0]).reshape(-1)


def undisturbed(settings: dict[str, Any], passes: int) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """The result and the counts of a job that nobody disturbs."""
    with Job(settings | {"algorithm.passes": passes, "roles.spares": 0}, JOB) as job:
        return job.finish(3600.0), counts_of(job)


def main() -> None:
    """Endure, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--every", type=float, default=4.0, help="seconds between kills")
    arguments.add_argument("--spares", type=int, default=24)
    arguments.add_argument("--seed", type=int, default=1, help="of the choice of ranks")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="mpips-endurance-") as folder:
        program = Path(folder) / "counting.py"
        program.write_text(PROGRAM)
        endure(given, SETTINGS | {"python": program, "tables.counts": json.dumps(COUNTS).replace(": ", " = ")})


def endure(given: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Run the jobs, and say what became of them."""
    first, once = undisturbed(settings, FIRST_PASSES)
    choose = random.Random(given.seed)
    passes = max(FIRST_PASSES, round(SHARE * 60 * given.minutes * FIRST_PASSES / first["training_seconds"]))
    with Job(settings | {"algorithm.passes": passes, "roles.spares": given.spares}, JOB) as job:
        run = Endurance(job, choose)
        if not job.until(lambda: any(event["event"] == "epoch" for event in job.events), START_SECONDS):
            sys.exit(f"the job did not begin to train:\n{job.said()}")
        goes_on = True
        while goes_on and job.runs():
            job.until(lambda: False, given.every * choose.uniform(0.5, 1.5))
            goes_on = job.runs() and run.strike()
        result = job.result(2 * 60 * given.minutes + 60)
        exact = result["exit"] == "finished" and bool((counts_of(job) * FIRST_PASSES == once * passes).all())
        recoveries = run.recoveries()
        said = job.said()
    peer, _ = undisturbed(settings, passes)
    worst = {
        stage: max((after for each in recoveries if (after := each.after(stage)) is not None), default=None)
        for stage in ("view", "acknowledged", "whole")
    }
    report(
        "the longest time, from a death's detection, until the first thing that waited for it went on",
        worst["acknowledged"] or 0.0,
        "s",
        WANTED,
        "wanted",
        False,
        exit=result["exit"],
        reason=result["reason"],
        trouble=run.trouble,
        killed=dict(run.killed),
        recoveries=len(recoveries),
        whole=sum(each.is_whole for each in recoveries),
        worst=worst,
        counts_exact=exact,
        passes=passes,
        auc=result.get("metrics", {}).get("auc"),
        auc_undisturbed=peer["metrics"]["auc"],
        speed=round(result.get("examples_per_second", 0.0) / peer["examples_per_second"], 3),
    )
    if result["exit"] != "finished" or run.trouble:
        sys.exit(said)


if __name__ == "__main__":
    main()
