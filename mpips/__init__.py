"""mpips: a parameter server for HPC clusters, on MPI.

`run` starts a program on the workers of an MPI job; `TableSpec` names its tables. What users define registers itself
under its name: `update_rule`, what servers do with a push; `shard_function`, what they compute over a key range;
`function`, what any rank does when it is called; `program`, what a group of workers runs. Job files are run by the
command ``mpips run``.
"""

from mpips.errors import Error
from mpips.functions import shard_function
from mpips.plan import Memory, Scale
from mpips.program import program
from mpips.rule import update_rule
from mpips.start import run
from mpips.table import TableSpec
from mpips.tasks.calls import function
from mpips.views.view import Roles

__all__ = [
    "Error",
    "Memory",
    "Roles",
    "Scale",
    "TableSpec",
    "function",
    "program",
    "run",
    "shard_function",
    "update_rule",
]
