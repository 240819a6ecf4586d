"""A rank as `mpips run` sees it: it writes the run folder's files, and ends in the way that MPIPS_PRETEND says."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import mpi4py

mpi4py.rc.threads = False
from mpi4py import MPI  # noqa: E402

from mpips import start  # noqa: E402
from mpips.job import load  # noqa: E402

world = MPI.COMM_WORLD
world.Set_errhandler(MPI.ERRORS_RETURN)
manner = os.environ.get("MPIPS_PRETEND", "finish")
overrides = [value for sign, value in zip(sys.argv[2:], sys.argv[3:], strict=False) if sign == "--set"]
folder = load(sys.argv[1], overrides).run_folder
stopped: list[int] = []
signal.signal(signal.SIGUSR1, lambda number, _: stopped.append(number))


def write(name: str, value: object) -> None:
    temporary = folder / f".{name}"
    temporary.write_text(json.dumps(value))
    temporary.rename(folder / name)


def log(event: str, **values: object) -> None:
    with Path(folder, "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"time": time.time(), "event": event, **values}) + "\n")


def leave(exit_: str, reason: str, code: int) -> None:
    if world.rank == 0:
        metrics = {"auc": 0.7931, "logloss": 0.4361}
        roles = {"scheduler": 1, "servers": 1, "workers": world.size - 2}
        values = {"metrics": metrics, "seconds": 1.5, "examples_per_second": 1.25e6, "roles": roles}
        write("result.json", {"exit": exit_, "reason": reason, **values})
        time.sleep(0.05)
    start.leave(True, code if world.rank == 0 else 0)


window = MPI.Win.Allocate_shared(1 << 16, 1, comm=world)
pids = world.gather(os.getpid())
if world.rank == 0:
    host = os.uname().nodename
    ranks = [{"rank": rank, "role": "worker", "host": host, "pid": pid} for rank, pid in enumerate(pids or ())]
    write("ranks.json", ranks)
    log("start", ranks=world.size)
    if manner == "speak":
        sys.stderr.write("a message of a rank\n")
        sys.stderr.flush()
world.Barrier()

began = time.monotonic()
epoch = 0
while not stopped or manner == "stubborn":
    if world.rank == 0 and time.monotonic() - began > epoch * 0.1:
        epoch += 1
        speed = {"examples": epoch * 1000, "examples_per_second": 1e4}
        log("progress", epoch=epoch, epochs=5, loss=0.5, servers={"1": 0.4}, **speed)
        if epoch == 3:
            log("evaluation", epoch=3, auc=0.75, logloss=0.45, nonzeros=12)
    if manner in ("finish", "speak") and time.monotonic() - began > 0.5:
        leave("finished", "all passes done", 0)
    if manner == "fail" and time.monotonic() - began > 0.3:
        leave("failed", "data/x.csv: line 17: column is empty", 1)
    if manner == "vanish" and time.monotonic() - began > 0.3:
        start.leave(True, 0)
    if manner in ("vanish once", "torn down once") and time.monotonic() - began > 0.3:
        if "--resume" in sys.argv:
            leave("finished", "all passes done", 0)
        if world.rank == 0:
            (folder / "generation-000004.h5").touch()
        world.Barrier()
        if manner == "torn down once":  # by the launcher
            leave("interrupted", "SIGTERM received", 143)
        start.leave(True, 0)
    if manner == "hang" and world.rank == 0 and not (folder / "result.json").exists():
        write("result.json", {"exit": "finished", "reason": "but never leaves", "metrics": {}})
    time.sleep(0.01)
log("checkpoint", generation=1, seconds=0.1)
leave("interrupted", "stopped by a signal, checkpoint written", 0)
