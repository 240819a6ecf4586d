"""mpips: a parameter server for HPC clusters, on MPI.

`run` starts a program on the workers of an MPI job; `TableSpec` names its tables; `update_rule` registers what
servers do with a push. Job files are run by the command ``mpips run``.
"""

from mpips.errors import Error
from mpips.plan import Memory
from mpips.rule import update_rule
from mpips.scheduler.view import Roles
from mpips.start import run
from mpips.table import TableSpec

__all__ = ["Error", "Memory", "Roles", "TableSpec", "run", "update_rule"]
