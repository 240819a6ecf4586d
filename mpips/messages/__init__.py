"""The protocol: every message, by who talks to whom.

| module | |
| --- | --- |
| `course` | ranks and the scheduler, from the start of a job to its end |
| `views` | the scheduler and ranks: who does what from now on |
| `succession` | the scheduler's session with each rank, and its log for the standby |
| `work` | the scheduler and workers: workloads |
| `data` | workers and data servers: batches; data servers among each other: the dictionary |
| `exchanges` | workers among each other: activations |
| `tables` | workers and servers: pushes, pulls and functions |
| `calls` | any rank and any other: calls and sums |
| `copies` | servers among each other |

A message is a small struct sent by point-to-point MPI. Values, keys and batches never travel in one: a message names an
offset in its sender's arena, and the receiver reads there. Offsets and sizes are in bytes.
"""

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any

import msgspec

from mpips.messages.calls import *
from mpips.messages.copies import *
from mpips.messages.course import *
from mpips.messages.data import *
from mpips.messages.exchanges import *
from mpips.messages.message import Message as Message
from mpips.messages.succession import *
from mpips.messages.tables import *
from mpips.messages.views import *
from mpips.messages.work import *

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(reduce(or_, Message.__subclasses__()))
encode: Callable[[Message], bytes] = _encoder.encode
decode: Callable[[bytes], Any] = _decoder.decode
