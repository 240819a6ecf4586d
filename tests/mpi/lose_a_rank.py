"""A job under mpirun, of which a rank that nobody can replace kills itself so many seconds after the first pull, and
writes into a file when: lose_a_rank.py RANK SECONDS PLACE FILE.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

import mpips
import mpips.rank  # what takes long is done before the clock starts

victim, seconds, place, killed = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
begun = killed.with_name("begun")


def die():
    while not begun.exists():
        time.sleep(0.01)
    time.sleep(seconds)
    killed.write_text(str(time.monotonic()))
    os.kill(os.getpid(), signal.SIGKILL)


MPI.COMM_WORLD.Barrier()
if MPI.COMM_WORLD.rank == victim:
    threading.Thread(target=die, daemon=True).start()


def program(worker):
    w = worker.table("w")
    while True:
        w.push(slice(None), np.ones(10_000))
        w.pull(np.arange(0, 10_000, 7)).wait()
        begun.touch()


mpips.run(
    program,
    [mpips.TableSpec(name="w", rows=10_000)],
    roles=mpips.Roles(servers=1, workers=2),
    delay=4,
    conduct=(lambda conductor: None) if victim == 0 else None,  # a scheduler that runs a program has no standby
    memory=mpips.Memory(server=1 << 22, worker=1 << 22),
    separate_nodes=place == "nodes of their own",
)
