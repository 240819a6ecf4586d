"""Failure mitigation (ULFM), whose names are outside the MPI standard still: all of them live here.

An MPI without it (MPICH, Intel MPI, Open MPI 4) runs everything; there a dead rank ends the job.
"""

import os

from mpi4py import MPI

AVAILABLE = MPI.Get_library_version().startswith("Open MPI v5")
ENABLED = AVAILABLE and os.environ.get("OMPI_MCA_mpi_ft_enable") == "1"  # noqa: SIM112 - set by mpirun --with-ft ulfm
_FAILURES = ("MPI_ERR_PROC_FAILED", "MPI_ERR_PROC_FAILED_PENDING", "MPI_ERR_REVOKED")


def is_failure(error: MPI.Exception) -> bool:
    """Whether an MPI error says that a process has died."""
    return any(name in error.Get_error_string() for name in _FAILURES) or bool(AVAILABLE and "FAILED" in str(error))


def failed_ranks(comm: MPI.Intracomm) -> list[int]:
    """Ranks of a communicator known to be dead; wildcard receives work again afterwards."""
    if not AVAILABLE:
        return []
    comm.Ack_failed()
    group = comm.Get_failed()
    if group.size == 0:
        return []
    ranks = MPI.Group.Translate_ranks(group, range(group.size), comm.group)
    return [int(rank) for rank in ranks]


def revoke(comm: MPI.Comm) -> None:
    """End whatever any process waits for in a communicator."""
    comm.Revoke()
