"""How the recovery from a loss goes: its stages, which come when all that the rank was is made up for."""

import msgspec
import pytest

from mpips.messages import DataReady, NoMoreWork, ViewTaken, WorkDone, WorkRequest
from mpips.plan import Plan
from mpips.scheduler.effects import Effects
from mpips.scheduler.losses import Losses
from mpips.scheduler.tally import Tally
from mpips.views.view import Roles, assign

VIEW = assign([0] * 10, Roles(servers=3, data_servers=2, workers=2, spares=2))
SERVER, DATA_SERVER, WORKER = VIEW.servers[0], VIEW.data_servers[0], VIEW.workers[0]


class Owed:
    """Of the workloads of the dead: how many nobody has, how many are not done."""

    def __init__(self):
        self.left = 0, 0

    def owed(self, worker):
        return self.left


class Told(Effects):
    """The stages of each recovery that are logged, by rank and role."""

    def stages(self, rank, role):
        events = [effect.event for effect in self.wanted]
        return [event["stage"] for event in events if (event["rank"], event["role"]) == (rank, role)]


def losses(data=True):
    plan = Plan(program=print, tables=lambda _: [], roles=Roles(), **({"data": object()} if data else {}))
    told, work = Told(), Owed()
    return Losses(plan, work, Tally(), told), told, work


def lose(found, rank, view=VIEW, number=2):
    found.viewed(found.detected(rank, view), number, "something is done")


def ready(part):
    return DataReady(part, 1, 0, 1, 0, 0, 1, [])


def test_a_server_is_made_up_for_when_all_copies_are_where_they_belong():
    found, told, _ = losses()
    lose(found, SERVER)
    found.resumed(1)  # of a view with it
    assert told.stages(SERVER, "server") == ["detected", "view"]
    found.resumed(2)
    found.resumed(2)
    found.heard(WORKER, ViewTaken(2))
    assert told.stages(SERVER, "server") == ["detected", "view", "acknowledged"]
    found.settled()
    found.settled()
    assert told.stages(SERVER, "server") == ["detected", "view", "acknowledged", "whole"]


def test_nothing_is_acknowledged_for_a_server_that_nobody_waited_for():
    found, told, _ = losses()
    lose(found, SERVER)
    found.settled()
    assert told.stages(SERVER, "server") == ["detected", "view", "whole"]


@pytest.mark.parametrize("data", [True, False])
def test_a_spare_is_not_missed(data):
    found, told, _ = losses(data)
    lose(found, VIEW.spares[0])
    assert told.stages(VIEW.spares[0], "spare") == ["detected", "view", "acknowledged", "whole"]


def test_a_data_server_is_made_up_for_when_all_its_parts_are_read_by_others():
    found, told, _ = losses()
    view = msgspec.structs.replace(VIEW, parts=[DATA_SERVER, VIEW.data_servers[1], DATA_SERVER])
    lose(found, DATA_SERVER, view)
    found.heard(DATA_SERVER, ready(0))  # said before it died
    found.heard(VIEW.data_servers[1], ready(1))
    found.heard(VIEW.data_servers[1], ready(0))
    assert told.stages(DATA_SERVER, "data server") == ["detected", "view"]
    found.heard(VIEW.data_servers[1], ready(2))
    assert told.stages(DATA_SERVER, "data server") == ["detected", "view", "acknowledged", "whole"]


def test_a_worker_is_made_up_for_when_others_have_done_its_work():
    found, told, work = losses()
    work.left = 1, 2
    lose(found, WORKER)
    found.heard(VIEW.workers[1], WorkRequest())
    assert told.stages(WORKER, "worker") == ["detected", "view"]
    work.left = 0, 1
    found.heard(VIEW.workers[1], WorkRequest())
    assert told.stages(WORKER, "worker") == ["detected", "view", "acknowledged"]
    work.left = 0, 0
    found.heard(VIEW.workers[1], WorkDone(1, 1, 0.0, b""))
    assert told.stages(WORKER, "worker") == ["detected", "view", "acknowledged", "whole"]


def test_a_worker_with_a_program_is_made_up_for_when_the_view_is_taken():
    found, told, _ = losses(data=False)
    lose(found, WORKER)
    found.heard(VIEW.workers[1], ViewTaken(1))
    assert told.stages(WORKER, "worker") == ["detected", "view"]
    found.heard(VIEW.workers[1], ViewTaken(2))
    assert told.stages(WORKER, "worker") == ["detected", "view", "acknowledged", "whole"]


@pytest.mark.parametrize("copies_first", [True, False])
def test_a_rank_of_two_roles_is_made_up_for_when_both_are(copies_first):
    found, told, _ = losses()
    lose(found, SERVER, msgspec.structs.replace(VIEW, scheduler=SERVER))
    stages = [found.settled, lambda: found.heard(WORKER, ViewTaken(2))]
    for stage in stages if copies_first else reversed(stages):
        assert told.stages(SERVER, "scheduler") == ["detected", "view"]
        stage()
    assert told.stages(SERVER, "scheduler") == ["detected", "view", "acknowledged", "whole"]


def test_a_scheduler_that_serves_shards_and_data_is_made_up_for_when_all_three_are():
    found, told, _ = losses()
    lose(found, SERVER, msgspec.structs.replace(VIEW, scheduler=SERVER, parts=[SERVER]))
    found.heard(WORKER, ViewTaken(2))
    found.settled()
    assert told.stages(SERVER, "scheduler") == ["detected", "view"]
    found.heard(DATA_SERVER, ready(0))
    assert told.stages(SERVER, "scheduler") == ["detected", "view", "acknowledged", "whole"]


def test_of_a_job_without_data_nobody_reads_those_of_a_dead_rank():
    found, told, _ = losses(data=False)
    lose(found, 0, msgspec.structs.replace(VIEW, parts=[0]))
    found.heard(WORKER, NoMoreWork())
    assert told.stages(0, "scheduler") == ["detected", "view"]
    found.heard(WORKER, ViewTaken(2))
    assert told.stages(0, "scheduler") == ["detected", "view", "acknowledged", "whole"]
