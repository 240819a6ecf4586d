"""Tasks of any rank for any other: functions, and sums over a group of workers."""

from typing import Any

from mpips.messages.message import Message


class Call(Message, frozen=True):
    """Any rank → any rank: run a registered Python function."""

    time: int
    after: list[int]
    function: str
    argument: Any


class CallReply(Message, frozen=True):
    """The function of task `time` has returned, and all that it asked for is done."""

    time: int
    result: Any


class Sum(Message, frozen=True):
    """Worker → scheduler: my part of the `number`-th sum over my group."""

    time: int
    number: int
    values: list[float]


class SumReply(Message, frozen=True):
    """Scheduler → worker: the sum over all workers of the group, in their order."""

    time: int
    values: list[float]


class Refused(Message, frozen=True):
    """Whoever was asked → who asked: task `time` can't be done, and why."""

    time: int
    reason: str
