"""Whether a job survives that all of it dies at once, again and again: every process is killed, as by a power cut.

`mpips run` trains as inputs/flights-lr.toml does, with a generation every tenth of a second. Beside that it adds 1 for
every feature of every row that is trained on to a table of counts, and now and then 1 to a large table of marks, of
which most shards stay as they are from one generation to the next. Everything of it is killed (SIGKILL): at a random
moment, while it starts or restores its tables, when a server's file, the master, or the dropping of old generations has
just begun, or at its end. Then the run folder is looked at: every generation that is there must be whole, and the
newest at least as new as the last that the log calls complete. The job is started again, with other numbers of servers
and workers; it must go on from just that generation. In the end the counts must be exact, if generations are cuts; else
none may be missing, while of workloads that were under way when a generation was written some may count twice.

python benchmarks/whole_job_kills.py [--kills 100] [--every 0.1] [--keep 2] [--consistency cut] [--seed 1]
"""

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import median, report
from recovery import JOB

from mpips.checkpoint import CheckpointError, Generation, drop_old, generations
from mpips.checkpoint.folder import number
from mpips.checkpoint.layout import TEMPORARY
from mpips.cli.progress import Metrics

PROGRAM = """
import numpy as np
from mpips.algorithms import linear
from mpips.algorithms.linear.online import LogisticRegression

SELDOM = 16


class Counting(LogisticRegression):
    def __init__(self, weights, counts, marks):
        super().__init__(weights)
        self._counts = counts
        self._marks = marks

    def train(self, batch):
        loss = super().train(batch)
        occurrences = np.bincount(batch.indices, minlength=batch.keys.size)
        self._counts.push(batch.keys, occurrences.astype(np.float64))
        mark = int(batch.keys[occurrences == 1].sum())
        if mark % SELDOM == 0:
            self._marks.push([mark % self._marks.spec.rows], [1.0])
        return loss


def train(worker, table):
    worker.train(Counting(worker.table(table), worker.table("counts"), worker.table("marks")))


linear.train = train
"""
COUNTED: dict[str, dict[str, Any]] = {
    "counts": {"kind": "dense", "rows": "features", "dtype": "float64", "rule": {"name": "add"}},
    "marks": {"kind": "dense", "rows": 1 << 19, "dtype": "float64", "rule": {"name": "add"}},
}
SETTINGS = {"roles.data_servers": 1, "algorithm.evaluate_every": 0}
MARK = "MPIPS_WHOLE_JOB_KILLS"
FIRST_PASSES, LAST_PASSES, END_PASSES, FOREVER = 4, 3, 2, 1_000_000
SERVERS, WORKERS = (1, 2, 3, 4), (1, 2, 3)
START_SECONDS, PHASE_SECONDS, END_SECONDS = 90.0, 20.0, 180.0
TRAINING_SECONDS = 1.5  # until a kill, at most
LAST_SECONDS = 0.15  # from when a job begins to end until a kill, at most
RESTORE_SECONDS = 0.2  # from when servers are asked to read a generation until a kill, at most
JUST = 0.004  # seconds, at most, from the beginning of a phase to a kill
PAUSE = 0.0005
AIMS = {"anywhere": 8, "start": 3, "restore": 3, "server files": 2, "master": 2, "drop": 2, "end": 2}  # how often each
APPEARING = {"server files": "", "master": TEMPORARY, "drop": ".h5"}  # how what appears then in the run folder ends


class Job:
    """A job in a run folder, from its start until it is killed, or ends.

    Attributes
    ----------
    began : when it was started, in Unix seconds.
    events : those so far.
    """

    def __init__(self, home: Path, settings: Mapping[str, Any]) -> None:
        self.run = home / "run"
        self.before = set(self.run.rglob("generation-*"))
        self._token = secrets.token_hex(8)
        self._said = home / "said"
        self._metrics = Metrics(self.run / "metrics.jsonl")
        self.events: list[dict[str, Any]] = []
        self.processes: list[int] = []
        command = [sys.executable, "-c", "from mpips.cli import main; main()", "run", str(JOB), "--resume-or-start"]
        for name, value in {**SETTINGS, **settings, "checkpoint.folder": self.run}.items():
            command += ["--set", f"{name}={value}"]
        (self.run / "metrics.jsonl").unlink(missing_ok=True)  # of the job before
        self.began = time.time()
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=os.environ | {MARK: self._token}
            )

    def said(self) -> str:
        """What `mpips run` has said."""
        return self._said.read_text(errors="replace")

    def first(self, event: str) -> dict[str, Any] | None:
        """The first event of a kind."""
        return next((each for each in self.events if each["event"] == event), None)

    def until(self, holds: Callable[[], object], seconds: float, pause: float = 0.005) -> bool:
        """Wait for something while the job runs; whether it came."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            if holds():
                return True
            time.sleep(pause)
        return bool(holds())

    def until_event(self, event: str, seconds: float) -> bool:
        """Wait for an event."""

        def come() -> bool:
            self.events += self._metrics.new()
            return self.first(event) is not None

        return self.until(come, seconds)

    def note_processes(self) -> None:
        """Find all that belongs to it, so that it can be killed at once."""
        self.processes = belonging(self._token)

    def kill(self) -> None:
        """Kill all of it, so far as it is known; then what has come since."""
        left = self.processes or belonging(self._token)
        while left:
            for pid in left:
                with_luck(pid)
            left = belonging(self._token)
        self._process.wait()
        self.events += self._metrics.new()

    def end(self, seconds: float) -> dict[str, Any]:
        """The result of a job that goes on undisturbed."""
        self.until(lambda: False, seconds, 0.05)
        self.kill()
        result = self.run / "result.json"
        return json.loads(result.read_text()) if result.exists() else {"exit": "none", "reason": self.said()[-2000:]}


def belonging(token: str) -> list[int]:
    """The processes that carry a token in their environment; zombies carry none."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"{MARK}={token}".encode() in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
        except OSError:
            continue
    return found


def with_luck(pid: int) -> None:
    """Kill a process, if it is there still."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Found(NamedTuple):
    """A run folder after a kill.

    Attributes
    ----------
    newest : number of the newest generation; 0: there is none.
    passes : epochs of which that has something.
    own, whole : bytes of its own files, and of all those that it needs.
    phase : what the job was at when it was killed.
    trouble : what is wrong, in words; empty if nothing is.
    """

    newest: int
    passes: int
    own: int
    whole: int
    phase: str
    trouble: str


def look(job: Job, keep: int) -> Found:
    """See whether every generation is whole, none too old, and what the job was at."""
    masters, trouble = generations(job.run), ""
    newest = number(masters[0]) if masters else 0
    said = max((event["generation"] for event in job.events if event["event"] == "checkpoint"), default=0)
    if newest < said:
        trouble = f"the newest generation is {newest}, {said} was said to be complete"
    passes = own = whole = 0
    for master in masters:
        try:
            with Generation(master) as generation:
                generation.verify(deep=True)
                if master == masters[0]:
                    passes = max([generation.progress["epochs"], *map(int, generation.progress["done"])])
                    own = sum(file.bytes for file in generation.files if file.generation == newest)
                    whole = sum(file.bytes for file in generation.files)
        except CheckpointError as error:
            trouble = str(error)
    return Found(newest, passes, own, whole, phase(job, masters, keep), trouble)


def of(run: Path, path: Path) -> int:
    """The generation that a file is of."""
    return number(Path(path.relative_to(run).parts[0]))


def phase(job: Job, masters: list[Path], keep: int) -> str:
    """What the job was at, as its files say."""
    if (job.run / "result.json").exists():
        return "after the end"
    if not job.first("start"):
        return "starting"
    if not job.first("training"):
        return "restoring" if any("data server" in each.get("text", "") for each in job.events) else "reading data"
    if job.first("stopping"):
        return "ending"
    newest = number(masters[0]) if masters else 0
    coming = [path for path in set(job.run.rglob("generation-*")) - job.before if of(job.run, path) > newest]
    coming += [path for path in job.run.glob("*/server-*") if path.parent in coming]
    temporary = [path for path in coming if path.name.endswith(TEMPORARY)]
    if temporary:
        return "writing the master" if any(path.parent == job.run for path in temporary) else "writing server files"
    if coming:
        return "between one file and another"
    return "dropping the old" if droppable(job.run, keep) else "training"


def droppable(run: Path, keep: int) -> bool:
    """Whether something is there that a job would drop; seen in a copy."""
    with tempfile.TemporaryDirectory(dir=run.parent) as copy:
        again = shutil.copytree(run, Path(copy) / "run", copy_function=os.link)
        before = set(again.rglob("*"))
        drop_old(again, keep)
        return set(again.rglob("*")) != before


def aim(job: Job, at: str, choose: random.Random, start: float) -> str:
    """Wait for the moment to kill; what went wrong before, in words."""
    if at == "start":
        job.until(lambda: time.time() > job.began + start * choose.random(), START_SECONDS, PAUSE)
        return ""
    if at == "restore":
        job.until_event("start", START_SECONDS)
        job.note_processes()
        job.until_event("note", START_SECONDS)  # the data are read, and servers are asked to make their tables
        moment = time.time() + RESTORE_SECONDS * choose.random()
        job.until(lambda: time.time() > moment, START_SECONDS, 0.0)
        return ""
    if not job.until_event("training", START_SECONDS):
        return f"it did not begin to train: {job.said()[-2000:]}"
    job.note_processes()
    if at == "end":
        job.until_event("stopping", END_SECONDS)
        moment = time.time() + LAST_SECONDS * choose.random()
        job.until(lambda: time.time() > moment, START_SECONDS, PAUSE)
        return ""
    moment = time.time() + TRAINING_SECONDS * choose.random()
    job.until(lambda: time.time() > moment, START_SECONDS, PAUSE)
    if at != "anywhere":
        known = set(os.listdir(job.run))

        def begun() -> bool:
            new = [name for name in os.listdir(job.run) if name not in known]
            return any(name.startswith("generation-") and name.endswith(APPEARING[at]) for name in new)

        job.until(begun, PHASE_SECONDS, PAUSE)
        moment = time.time() + JUST * choose.random()
        job.until(lambda: time.time() > moment, START_SECONDS, 0.0)
    return ""


def counted(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What is counted, in the newest generation."""
    with Generation(generations(run)[0]) as generation:
        return {name: generation.dense(name, 0, generation.rows(name))[0].reshape(-1) for name in COUNTED}


def undisturbed(home: Path, settings: Mapping[str, Any], passes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of a job that nobody disturbs, and what it has counted."""
    job = Job(home, {**settings, "roles.servers": 2, "algorithm.passes": passes, "checkpoint.every": 0})
    result = job.end(END_SECONDS + passes)
    if result["exit"] != "finished":
        sys.exit(f"an undisturbed job did not finish: {result['reason']}")
    return result, counted(job.run)


def main() -> None:
    """Kill, look, go on, again and again; and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=100)
    arguments.add_argument("--every", type=float, default=0.1, help="seconds between generations")
    arguments.add_argument("--keep", type=int, default=2, help="generations")
    arguments.add_argument("--consistency", choices=["fuzzy", "cut"], default="cut", help="of generations")
    arguments.add_argument("--seed", type=int, default=1, help="of the moments and the numbers of ranks")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="mpips-kills-") as folder:
        program = Path(folder) / "counting.py"
        program.write_text(PROGRAM)
        settings: dict[str, Any] = {"python": program, "data.cache": Path(folder) / "cache"}
        for name, table in COUNTED.items():
            settings[f"tables.{name}"] = json.dumps(table).replace(": ", " = ")
        kill_all(given, Path(folder), settings)


def kill_all(given: argparse.Namespace, folder: Path, settings: dict[str, Any]) -> None:
    """The whole course."""
    homes = [folder / name for name in ("once", "killed", "peer")]
    for home in homes:
        home.mkdir()
    _, once = undisturbed(homes[0], settings, FIRST_PASSES)
    home, choose = homes[1], random.Random(given.seed)
    settings |= {"checkpoint.every": given.every, "checkpoint.keep": given.keep}
    settings["checkpoint.consistency"] = given.consistency
    found = Found(0, 0, 0, 0, "", "")
    phases, starts, shares, troubles, good = Counter[str](), list[float](), list[float](), list[str](), 0
    resumed = ended = 0
    for kill in range(given.kills):
        at = choose.choices(list(AIMS), list(AIMS.values()))[0]
        ranks = {"roles.servers": choose.choice(SERVERS), "roles.workers": choose.choice(WORKERS)}
        passes = found.passes + END_PASSES if at == "end" else FOREVER
        job = Job(home, {**settings, **ranks, "algorithm.passes": passes})
        trouble = aim(job, at, choose, median(starts) if starts else START_SECONDS / 10)
        job.kill()
        restored, training, before = job.first("restored"), job.first("training"), found.newest
        found = look(job, given.keep)
        if training is not None:
            starts.append(training["time"] - job.began)
            resumed += restored is not None
            if (restored["generation"] if restored else 0) != before:
                trouble = trouble or f"went on from {restored}, generation {before} was the newest"
        trouble = trouble or found.trouble
        good += not trouble
        ended += found.phase == "after the end"
        phases[found.phase] += 1
        if found.own:
            shares.append(found.own / found.whole)
        if trouble:
            troubles.append(f"kill {kill}: {trouble}")
        print(f"kill {kill} ({at}), {found.phase}: generation {found.newest}, {ranks} {trouble}", file=sys.stderr)
    passes = found.passes + LAST_PASSES
    last = Job(home, {**settings, "roles.servers": 2, "algorithm.passes": passes})
    result = last.end(END_SECONDS)
    counts = counted(last.run)
    missing = {name: float(np.maximum(once[name] * passes / FIRST_PASSES - counts[name], 0).sum()) for name in COUNTED}
    extra = {name: float(np.maximum(counts[name] - once[name] * passes / FIRST_PASSES, 0).sum()) for name in COUNTED}
    peer, _ = undisturbed(homes[2], settings, passes)
    report(
        "kills of a whole job at random moments after which it went on from the newest complete generation",
        good,
        "kills",
        given.kills,
        "kills",
        True,
        seed=given.seed,
        consistency=given.consistency,
        killed_while=dict(phases.most_common()),
        restored=resumed,
        start_to_training={"p50": round(median(starts), 2), "max": round(max(starts), 2)},
        bytes_of_own_files=round(median(shares), 3) if shares else None,
        passes=passes,
        exit=result["exit"],
        missing=missing,
        counted_twice={name: round(extra[name] / float(counts[name].sum()), 6) for name in COUNTED},
        auc=result.get("metrics", {}).get("auc"),
        auc_undisturbed=peer["metrics"]["auc"],
        troubles=troubles,
    )
    inexact = any(missing.values()) or (given.consistency == "cut" and any(extra.values()))
    if troubles or result["exit"] != "finished" or inexact:
        sys.exit(f"{troubles}\n{result}\n{missing}\n{extra}")


if __name__ == "__main__":
    main()
