"""When what counts on a view may be done at a server: not before it has that view, and not when its shards are others
now, since then it is sent again; nothing is applied while the server rests before its shards get other heads.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from mpips.messages import CallShards, Change, ChangeTaken, Message, Pull, PullScan, Push, ShardsWanted
from mpips.tasks import Received

ViewedMessage = Push | Pull | PullScan | CallShards | Change | ChangeTaken | ShardsWanted


class Gate:
    """One for each server.

    Parameters
    ----------
    received : this rank's.
    view : the number of the view in force.
    handlers : of the messages that count on a view, by kind.

    Attributes
    ----------
    view : as above; whoever takes another sets it.
    since : by table, the view since which the shards that are led are the same; empty before there are tables.
    resting : the view that is to be over before anything more is applied; None while pushes are applied.
    """

    def __init__(
        self, received: Received, view: int, handlers: Mapping[type[Message], Callable[[int, Any], None]]
    ) -> None:
        self.view = view
        self.since: list[int] = []
        self.resting: int | None = None
        self._received = received
        self._handlers = handlers
        self._early: list[tuple[int, ViewedMessage]] = []
        self._held_up: deque[Callable[[], None]] = deque()
        self._is_next = False

    def take(self, source: int, message: ViewedMessage) -> None:
        """Handle a message now or when its view is in force; or not at all."""
        if message.view > self.view or not self.since:
            self._early.append((source, message))
        elif isinstance(message, Change | ChangeTaken | ShardsWanted) or message.view >= self.since[message.table]:
            self._handlers[type(message)](source, message)

    def is_outdated(self, source: int, message: Push | CallShards) -> bool:
        """Whether shards have changed since a message's view: it is dropped, and will be sent again."""
        if message.view >= self.since[message.table]:
            return False
        self._received.drop(source, message.time, message.part)
        return True

    def holds_up(self, run: Callable[[], None]) -> bool:
        """Whether this server rests, or others were held up before: then `run` is called after them."""
        if self._is_next:
            self._is_next = False
            return False
        if self.resting is None and not self._held_up:
            return False
        self._held_up.append(run)
        return True

    def go_on(self) -> None:
        """Do what has waited for another view, now that this server acts by it."""
        self.resting = None
        while self._held_up:
            run = self._held_up.popleft()
            self._is_next = True
            run()
        self.take_early()

    def take_early(self) -> None:
        """Take in what came before its view or before the tables, as far as both are there."""
        early, self._early = self._early, []
        for source, message in early:
            self.take(source, message)

    def waiting(self) -> list[Any]:
        """What has come too early, or is held up."""
        return [*self._early, *self._held_up]
