"""Scattered keys between hosts: one worker pulls and pushes them, three servers on three other hosts have them, beside
raw MPI: the same bytes sent to the same three hosts and answered.

The hosts are namespaces on this machine, joined by a bridge (see tests/hosts; takes root). With `--loss N` instead: N
times a job's host falls silent, its cable pulled and then its power cut, and the line has the time until the first push
that was for it is acknowledged by its successor. With `--daemon N`: N times mpirun's daemon on a host is killed, which
takes the job with it, and the line has the time until it trains again, from its newest generation, by itself.

python benchmarks/hosts.py [--keys 100000] [--loss 20] [--daemon 5]
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import UNDER_MPIRUN, median, report

import mpips
from mpips.cli.cleanup import Scratch
from mpips.cli.launch import command, environment, find
from tests.hosts.conftest import Hosts, up
from tests.jobs.started import command_of, environment_of, pids

JOB = Path(__file__).parent.parent / "inputs/flights-lr.toml"
ROWS = 1 << 22
TIMES = 60
SMALL = 2000
FOUR_HOSTS = "h1:2,h2:1,h3:1,h4:1"  # the servers come to be on h1 to h3, the worker on h4
OVER = "h1:3,h2:3,h3:3,h4:3"
SETTINGS = {
    "roles.servers": 3,
    "roles.data_servers": 2,
    "roles.workers": 3,
    "roles.spares": 3,
    "network.heartbeat": 0.3,
    "network.timeout": 1.0,
    "algorithm.passes": 100_000,
    "algorithm.evaluate_every": 0,
}
START_SECONDS, GOES_ON_SECONDS = 90.0, 40.0


# --- keys ---------------------------------------------------------------------------------------------------------


def raw(keys: int) -> dict[str, float]:
    """Seconds of sending a third of the bytes to each of three ranks and being answered a third of the values, and
    of a small message there and back; from the last rank to ranks 1 to 3.
    """
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    me, worker = comm.rank, comm.size - 1

    def wait(requests: list[Any], pause: float = 0.0) -> None:
        """Without keeping the cores, which all ranks share, from the others."""
        while not MPI.Request.Testall(requests):
            time.sleep(pause) if pause else os.sched_yield()

    up, down = np.zeros(keys // 3 * 12, np.uint8), np.zeros(keys // 3 * 4, np.uint8)
    found: dict[str, float] = {}
    for name, there, back, times in (
        ("pull", up[: keys // 3 * 8], down, TIMES),
        ("push", up, down[:8], TIMES),
        ("small", up[:4], down[:4], SMALL),
    ):
        taken = []
        peers = [1, 2, 3] if name != "small" else [1]
        for _ in range(times):
            begin = time.perf_counter()
            if me == worker:
                got = [back.copy() for _ in peers]
                requests = [comm.Irecv(each, peer) for each, peer in zip(got, peers, strict=True)]
                requests += [comm.Isend(there, peer) for peer in peers]
                wait(requests)
            elif me in peers:
                mine = there.copy()
                wait([comm.Irecv(mine, worker)])
                wait([comm.Isend(back, worker)])
            taken.append(time.perf_counter() - begin)
        found[name] = median(taken)
        wait([comm.Ibarrier()], 1e-3)
    return found


def program_of(keys: int) -> Callable[[Any], dict[str, float]]:
    """Times of pulls and pushes of scattered keys, and of pulls of one."""

    def program(worker: Any) -> dict[str, float]:
        table, random = worker.table("w"), np.random.default_rng(1)
        lists = [np.sort(random.choice(ROWS, keys, replace=False)).astype(np.uint64) for _ in range(8)]
        values = np.ones(keys, np.float32)

        def seconds(work: Callable[[int], Any], times: int) -> float:
            taken = []
            for i in range(times):
                begin = time.perf_counter()
                work(i)
                taken.append(time.perf_counter() - begin)
            return median(taken)

        for list_ in lists:
            table.push(list_, values).wait()
        return {
            "pull": seconds(lambda i: table.pull(lists[i % 8]).wait(), TIMES),
            "push": seconds(lambda i: table.push(lists[i % 8], values).wait(), TIMES),
            "small": seconds(lambda i: table.pull(lists[0][i % keys : i % keys + 1]).wait(), SMALL),
        }

    return program


def run_one(keys: int) -> None:
    """A rank of the job."""
    peer = raw(keys)
    found = mpips.run(
        program_of(keys),
        [mpips.TableSpec(name="w", rows=ROWS)],
        roles=mpips.Roles(servers=3, workers=1),
        replicas=0,
    )
    everyone = np.array([peer[name] for name in ("pull", "push", "small")])
    from mpi4py import MPI

    at_worker = np.empty((MPI.COMM_WORLD.size, 3))
    MPI.COMM_WORLD.Gather(everyone, at_worker, 0)
    if found is not None:
        print(json.dumps({"mpips": found[0], "raw": dict(zip(("pull", "push", "small"), at_worker[-1], strict=True))}))


def scattered(hosts: Hosts, keys: int) -> None:
    """Measure, and print the line."""
    scratch = Scratch()
    program = [sys.executable, __file__, "--keys", str(keys), "--inside"]
    line = command(find(), program, ranks=5, hosts=FOUR_HOSTS, extra=(), scratch=scratch)
    names = environment(5, FOUR_HOSTS, scratch) | hosts.environment
    try:
        done = subprocess.run(
            hosts.on("h1", *line), env=names, timeout=300, capture_output=True, text=True, check=False
        )
    finally:
        scratch.clear()
    lines = [text for text in done.stdout.splitlines() if text.startswith("{")]
    if not lines:
        sys.exit(done.stderr)
    found = json.loads(lines[-1])
    ours, peer = found["mpips"], found["raw"]
    size = {"pull": 12 * keys, "push": 12 * keys}
    report(
        f"{keys:,} scattered keys pulled from servers on three other hosts",
        size["pull"] / ours["pull"] / 1e6,
        "MB/s",
        size["pull"] / peer["pull"] / 1e6,
        "raw MPI, the same bytes to and from the same hosts",
        True,
        push=round(size["push"] / ours["push"] / 1e6, 1),
        push_raw=round(size["push"] / peer["push"] / 1e6, 1),
        mkeys_per_second={name: round(keys / ours[name] / 1e6, 2) for name in ("pull", "push")},
        messages_per_second=round(2 / ours["small"]),
        messages_per_second_raw=round(2 / peer["small"]),
    )


# --- losses -------------------------------------------------------------------------------------------------------


class Job:
    """flights-lr over four hosts, under `mpips run`. A context manager that ends it."""

    def __init__(self, hosts: Hosts, *options: str, **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mpips-hosts-"))
        self.run = self.folder / "run"
        self._token = self.folder.name
        words = {**SETTINGS, "checkpoint.folder": self.run, "checkpoint.every": 0, **settings}
        program = [str(Path(sys.executable).with_name("mpips")), "run", str(JOB), "--hosts", OVER, *options]
        program += [word for name, value in words.items() for word in ("--set", f"{name}={value}")]
        names = os.environ | hosts.environment | {"MPIPS_BENCHMARK": self._token}
        self.out = (self.folder / "out").open("w")
        self.process = subprocess.Popen(hosts.on("h1", *program), env=names, stdout=self.out, stderr=self.out)

    def __enter__(self) -> "Job":
        return self

    def processes(self) -> list[int]:
        """Those of its processes that live."""
        mark = f"MPIPS_BENCHMARK={self._token}".encode()
        return [pid for pid in pids() if mark in environment_of(pid)]

    def __exit__(self, *_: object) -> None:
        while left := self.processes():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        self.process.wait()
        self.out.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of some kinds so far."""
        path = self.run / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for line in lines if line.endswith("}") and (event := json.loads(line))["event"] in kinds]

    def until(self, holds: Callable[[], Any], what: str, seconds: float) -> None:
        """Wait for something."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"no {what} within {seconds:.0f} s:\n{(self.folder / 'out').read_text()}")
            time.sleep(0.02)


def host_loss(hosts: Hosts) -> float:
    """Seconds from a host's loss to the first acknowledgement by the successor of one of its servers."""
    with Job(hosts) as job:
        job.until(lambda: job.events("epoch"), "epoch", START_SECONDS)
        time.sleep(1.0)
        at = time.time()
        hosts.pull_the_cable("h3")
        hosts.cut_the_power("h3")

        def acknowledged() -> list[float]:
            stages = job.events("recovery")
            return [e["time"] for e in stages if (e["stage"], e["role"]) == ("acknowledged", "server")]

        job.until(acknowledged, "acknowledgement", GOES_ON_SECONDS)
        return min(acknowledged()) - at


def daemon_loss(hosts: Hosts) -> float:
    """Seconds from the death of a daemon to the first progress of the job that goes on."""
    with Job(hosts, "--restarts", "1", **{"checkpoint.every": 0.5}) as job:
        job.until(lambda: len(job.events("checkpoint")) > 1, "generation", START_SECONDS)
        time.sleep(1.0)
        found = [pid for pid in job.processes() if "prted" in command_of(pid) and hosts.of(pid) == "h3"]
        at = time.time()
        os.kill(max(found), signal.SIGKILL)

        def trains() -> list[float]:
            if not (job.run / "metrics.1.jsonl").exists() or not job.events("restored"):
                return []
            return [event["time"] for event in job.events("progress") if event["examples"] > 0]

        job.until(trains, "training", GOES_ON_SECONDS)
        return trains()[0] - at


def losses(lose: Callable[[Hosts], float], times: int, name: str, wanted: float) -> None:
    """Lose a host, or a daemon, again and again, each time of new hosts; print the line."""
    found = []
    for _ in range(times):
        with up() as hosts:
            found.append(lose(hosts))
        print(round(found[-1], 3), file=sys.stderr)
    reached = sum(seconds <= wanted for seconds in found)
    report(name, max(found), "s", wanted, "wanted at most", False, p50=round(median(found), 3), tries=times,
           reached=reached)  # fmt: skip


def main() -> None:
    """Measure, and print the line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keys", type=int, default=99_999)
    arguments.add_argument("--loss", type=int, default=0, metavar="N")
    arguments.add_argument("--daemon", type=int, default=0, metavar="N")
    arguments.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if any(name in os.environ for name in UNDER_MPIRUN) or given.inside:
        run_one(given.keys)
    elif given.loss:
        losses(host_loss, given.loss, "host silent, to the first push acknowledged by its successor", 2.5)
    elif given.daemon:
        losses(daemon_loss, given.daemon, "mpirun's daemon killed, to training from the newest generation", 15.0)
    else:
        with up() as hosts:
            scattered(hosts, given.keys)


if __name__ == "__main__":
    main()
