"""A job between nodes under mpirun whose rank 0 kills itself at the start, before the others have read from it."""

import os
import signal

from mpi4py import MPI

import mpips
from mpips.fabric.mpi import MpiFabric

if MPI.COMM_WORLD.rank == 0:
    MpiFabric._rget = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

mpips.run(
    lambda worker: None,
    [mpips.TableSpec(name="w", rows=10)],
    roles=mpips.Roles(servers=1, workers=2),
    memory=mpips.Memory(server=1 << 22, worker=1 << 22),
    separate_nodes=True,
)
