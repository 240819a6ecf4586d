"""Tasks: everything asked of another rank, on the side that asks and on the side that is asked."""

from mpips.tasks.issued import Issued
from mpips.tasks.received import Received
from mpips.tasks.task import Task, TaskCycle, TaskLost, TaskRefused, UnknownTask

__all__ = ["Issued", "Received", "Task", "TaskCycle", "TaskLost", "TaskRefused", "UnknownTask"]
