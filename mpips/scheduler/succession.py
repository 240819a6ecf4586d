"""Who mirrors the scheduler, and who follows it. Pure.

A job whose scheduler runs a program of its own (`conduct`) has no standbys: what that program has in its variables is
in no log, so nobody could go on with it.
"""

import msgspec

from mpips.plan import Plan
from mpips.views.view import View

STANDBYS = 1


def standbys(view: View) -> list[int]:
    """The ranks that should mirror the scheduler of a view.

    Those that do already go on with it. Then come ranks on other nodes than the scheduler's: spares, then data servers,
    then servers; then those on its own. Workers are not fit: they are in their program.
    """
    others = [*view.spares, *view.data_servers, *view.servers]
    fit = [rank for rank in others if rank != view.scheduler and rank not in view.lost]
    here = view.nodes[view.scheduler]
    kept = [rank for rank in view.standbys if rank in fit]
    return list(dict.fromkeys([*kept, *sorted(fit, key=lambda rank: view.nodes[rank] == here)]))[:STANDBYS]


def with_standbys(view: View, plan: Plan) -> View:
    """The view with its standbys, if the job can have any."""
    if plan.conduct is not None:
        return view
    return msgspec.structs.replace(view, standbys=standbys(view))
