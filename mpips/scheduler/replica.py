"""The scheduler's state as its standbys have it: the state machine, and every rank's conversation with it. Pure.

It changes by inputs alone, the same way wherever these are applied in the same order. The acting scheduler does what
follows from an input; a standby does not, and so knows all that the other may have left undone when it dies.
"""

import io
import pickle
from collections import deque
from typing import Any, NamedTuple

from mpips import messages as m
from mpips.plan import Plan
from mpips.scheduler.effects import Answer, Complete, Discard, End, Log, Send
from mpips.scheduler.scheduler import Scheduler
from mpips.session import Session

PLAN = "plan"


class Post(NamedTuple):
    """Send a message, as it is."""

    dest: int
    message: m.Message


class Write(NamedTuple):
    """Write the `number`-th event to the log of the run; it follows from the `cause`-th input."""

    cause: int
    number: int
    event: dict[str, Any]


Action = Post | Write | Complete | Discard | End | Answer


class Replica:
    """The state of one job, as a standby has it.

    Parameters
    ----------
    scheduler : the state machine, as it is before the first input.
    ranks : how many there are.
    time : seconds on the scheduler's clock.

    Attributes
    ----------
    index : inputs applied so far.
    time : of the last input.
    began : when the job began.
    sessions : the conversation with each rank that lives.
    unwritten : events that may not have been written yet.
    unanswered : answers that may not have been given yet, with the number of the input that each follows from.
    incomplete : the generation that is to be completed, if any is.
    end : how the job ends, once it does.
    """

    def __init__(self, scheduler: Scheduler, ranks: int, time: float) -> None:
        self.scheduler = scheduler
        self.index = 0
        self.time = self.began = time
        self.sessions = {rank: Session() for rank in range(ranks)}
        self.unwritten: deque[Write] = deque()
        self.unanswered: deque[tuple[int, Answer]] = deque()
        self.incomplete: Complete | None = None
        self.end: End | None = None
        self._events = 0
        self._ranks = ranks  # that there have ever been

    def apply(self, given: m.Input) -> list[Action]:
        """Take an input in: what follows from it."""
        self.index += 1
        self.time = max(self.time, given.time)
        acknowledgements = self._take(given)
        self._greet()
        effects, self.scheduler.effects = self.scheduler.effects, []
        return [*acknowledgements, *(action for effect in effects for action in self._follow(effect))]

    def _take(self, given: m.Input) -> list[Action]:
        scheduler, now = self.scheduler, self.time
        match given:
            case m.Said(_, source, number, heard, message):
                session = self.sessions[source]
                session.safe(heard)
                if session.hear(number):
                    scheduler.handle(source, m.decode(message), now)
                if session.owes():
                    return [Post(source, m.RankHeard(session.heard))]
            case m.Heard(_, source, heard):
                self.sessions[source].safe(heard)
            case m.Ticked():
                scheduler.tick(now)
            case m.Died(_, rank, silent):
                self.sessions.pop(rank)
                scheduler.lost(rank, now, silent)
            case m.Interrupted(_, reason):
                scheduler.interrupt(reason, now)
            case m.Broken(_, reason):
                scheduler.fail(reason, now)
            case m.Completed(_, error, worn):
                self.incomplete = None
                scheduler.completed(error, now, worn)
            case m.Scaled(_, name, servers, workers, spares):
                scheduler.scale(name, servers, workers, spares, now)
            case m.TraceWanted(_, name, table, keys, stop):
                scheduler.trace(name, table, keys, stop)
            case m.Conducted():
                scheduler.conducted(now)
        return []

    def _greet(self) -> None:
        """Begin to talk with ranks that have come to the job."""
        view = self.scheduler.view
        for rank in range(self._ranks, len(view.nodes)):
            if rank not in view.lost:
                self.sessions[rank] = Session()
        self._ranks = len(view.nodes)

    def _follow(self, effect: Any) -> list[Action]:
        match effect:
            case Send(dest, message):
                session = self.sessions.get(dest)
                if session is None:
                    return []
                number, said = session.say(m.encode(message))
                return [Post(dest, m.FromScheduler(number, session.heard, said))]
            case Log(event):
                self._events += 1
                self.unwritten.append(Write(self.index, self._events, event))
                return [self.unwritten[-1]]
            case Answer():
                self.unanswered.append((self.index, effect))
            case Complete():
                self.incomplete = effect
            case End():
                self.end = effect
        return [effect]

    def done(self, index: int) -> None:
        """Take notice that all that followed from the first `index` inputs has been done."""
        while self.unwritten and self.unwritten[0].cause <= index:
            self.unwritten.popleft()
        while self.unanswered and self.unanswered[0][0] <= index:
            self.unanswered.popleft()

    def again(self) -> list[Post]:
        """What ranks may not have heard, for a successor to say again."""
        return [
            Post(rank, m.FromScheduler(number, session.heard, message))
            for rank, session in self.sessions.items()
            for number, message in session.kept
        ]


# --- on its way to a standby ----------------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Leaves the plan out: every rank has it, and its programs can't be pickled."""

    def persistent_id(self, thing: Any) -> str | None:
        return PLAN if isinstance(thing, Plan) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, state: bytes, plan: Plan) -> None:
        super().__init__(io.BytesIO(state))
        self._plan = plan

    def persistent_load(self, name: str) -> Plan:
        return self._plan


def pack(replica: Replica) -> bytes:
    """A replica as bytes, without the job's plan."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(replica)
    return buffer.getvalue()


def unpack(state: bytes, plan: Plan) -> Replica:
    """The replica again."""
    replica: Replica = _Unpickler(state, plan).load()
    return replica
