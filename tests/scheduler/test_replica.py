"""What a standby has: the same state from the same inputs, and all that the scheduler may have left undone."""

import numpy as np
import pytest

from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.messages import Died
from mpips.scheduler.replica import Post, Replica, Write, pack, unpack
from mpips.views.view import Roles
from tests.scheduler.test_takeover import count
from tests.simulated import SLOW, SimulatedJob, libsvm, program_plan, table

OF_LOADS = ("servers", "idle", "bytes", "sent")  # of a progress event; loads are not mirrored


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The plan of a job that has run, its scheduler's first state, every input, and what followed from each."""
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", 400, 60, np.random.default_rng(7))
    spec = DataSpec(format="libsvm", files=("x.libsvm",), test=TestSplit(every=5), batch=40)
    roles = Roles(servers=2, data_servers=1, workers=2, spares=2)
    plan = program_plan(
        count, table(rows=100), data=spec, base=folder, passes=2, roles=roles, run=folder, saves=True, save_every=0.1
    )
    job = SimulatedJob(plan, [0] * 8, 1, latency=SLOW)
    job.simulation.kill(job.view.workers[0], 0.05)
    inputs, followed, first = [], [], []
    with pytest.MonkeyPatch.context() as patch:
        apply = Replica.apply

        def noted(self, given):
            if not first:
                first.append((self, pack(self)))
            actions = apply(self, given)
            if first[0][0] is self:
                inputs.append(given)
                followed.append(actions)
            return actions

        patch.setattr(Replica, "apply", noted)
        job.run()
    assert job.outcome.exit == "finished"
    assert any(isinstance(given, Died) for given in inputs)
    return plan, first[0][1], inputs, followed


def comparable(actions):
    return [
        action._replace(event={name: value for name, value in action.event.items() if name not in OF_LOADS})
        if isinstance(action, Write)
        else action
        for action in actions
    ]


def test_the_same_follows_from_the_same_inputs_wherever_the_state_is_taken_from(story):
    plan, first, inputs, followed = story
    replica = unpack(first, plan)
    for given, actions in zip(inputs, followed, strict=True):
        replica = unpack(pack(replica), plan)
        assert comparable(replica.apply(given)) == comparable(actions)


def test_a_standby_has_every_event_that_is_not_known_to_be_written(story, rng):
    plan, first, inputs, followed = story
    for cut in rng.integers(1, len(inputs), 20).tolist():
        done = int(rng.integers(0, cut))
        replica = unpack(first, plan)
        for given in inputs[:cut]:
            replica.apply(given)
        replica.done(done)
        missing = [action for actions in followed[done:cut] for action in actions if isinstance(action, Write)]
        assert comparable(replica.unwritten) == comparable(missing)


def test_a_standby_has_what_ranks_have_not_said_to_have_heard(story, rng):
    plan, first, inputs, followed = story
    for cut in rng.integers(1, len(inputs), 20).tolist():
        replica = unpack(first, plan)
        for given in inputs[:cut]:
            replica.apply(given)
        again = {(post.dest, post.message.number, post.message.message) for post in replica.again()}
        posts = [
            a for actions in followed[:cut] for a in actions if isinstance(a, Post) and hasattr(a.message, "heard")
        ]
        heard = dict.fromkeys(replica.sessions, 0)
        for given in inputs[:cut]:
            if hasattr(given, "heard") and given.source in heard:
                heard[given.source] = max(heard[given.source], given.heard)
        assert again == {
            (post.dest, post.message.number, post.message.message)
            for post in posts
            if post.dest in heard and post.message.number > heard[post.dest]
        }


def test_the_state_stays_small_however_long_the_job_is(story):
    plan, first, inputs, _ = story
    replica, most = unpack(first, plan), 0
    for index, given in enumerate(inputs):
        replica.apply(given)
        replica.done(index)
        most = max(most, sum(len(session.kept) for session in replica.sessions.values()) + len(replica.unwritten))
    assert most < 16 * len(replica.sessions)
