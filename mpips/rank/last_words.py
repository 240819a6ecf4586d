"""What a rank says and writes of the end of a job, in the place of a scheduler that can't."""

import contextlib

from mpips.fabric import Fabric
from mpips.messages import Stop
from mpips.plan import Plan
from mpips.record import Record, RunFolderError
from mpips.views.view import View


def refuse(fabric: Fabric, view: View, plan: Plan, reason: str) -> None:
    """The job can't begin, for this reason: everyone is told."""
    _stop_all_others(fabric, "failed", reason)
    with contextlib.suppress(RunFolderError):
        _leave_result(Record(plan.run), view, reason)


def give_up(fabric: Fabric, view: View, plan: Plan) -> tuple[str, str]:
    """The scheduler is dead, and nobody follows it, as far as this rank knows: others, who may know of a later view
    in which it is this rank that follows, are told.

    Returns
    -------
    tuple
        how the job ended, and the reason. If the scheduler had come to write that, it is what it wrote.
    """
    record = Record(plan.run, fresh=False)
    end = record.end
    if end is None:
        end = "failed", f"rank {view.scheduler} (scheduler) died"
        _leave_result(record, view, end[1])
    _stop_all_others(fabric, *end)
    return end


def _stop_all_others(fabric: Fabric, exit_: str, reason: str) -> None:
    for rank in range(fabric.size):
        if rank != fabric.rank:
            fabric.send(rank, Stop(exit_, reason))


def _leave_result(record: Record, view: View, reason: str) -> None:
    if record.first_result({"exit": "failed", "reason": reason, "metrics": {}, "roles": view.counts()}):
        record.event({"event": "end", "exit": "failed", "reason": reason})
