"""Only what is significant travels: small updates wait until they add up, small changes of a value are not told.

Source: Li et al. 2014, section 3.6, the significantly modified filter.
"""

from typing import Annotated

import msgspec
import numpy as np

from mpips.errors import Error
from mpips.filters.base import Array, Filter, Packet, Setting
from mpips.filters.registry import register
from mpips.filters.store import KeyStore
from mpips.kernels.significance import accumulate, compare, recall


class OutOfStep(Error, RuntimeError):
    """A pull says that values are as before, but what came before did not arrive here, or not in order."""


class SignificanceParameters(msgspec.Struct, frozen=True):
    """The limit up to which an entry does not travel: the larger of the two.

    Parameters
    ----------
    absolute : in units of the values.
    relative : on a push, times the largest magnitude of the column in this push; on a pull, times the value last sent.
    """

    absolute: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    relative: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0


@register("significance")
class Significance(Filter[SignificanceParameters]):
    """A push holds an entry back, and adds to it what comes next, as long as no column exceeds the limit.

    A pull leaves out entries none of whose columns differs by more than the limit from what this peer got last; the
    peer takes that again. Without a limit it leaves out what did not change.
    """

    Parameters = SignificanceParameters

    def __init__(self, parameters: SignificanceParameters, setting: Setting) -> None:
        super().__init__(parameters, setting)
        self._store = KeyStore(setting.width, setting.dtype, setting.rows)
        self._number = 0

    def encode(self, packet: Packet) -> Packet:
        """Leave out what is not significant."""
        store, values = self._store, packet.values
        kept = np.empty(values.shape[0], np.bool_)
        absolute, relative = self.parameters.absolute, self.parameters.relative
        known = store.count
        places = store.add(packet.entries())
        if self.setting.direction == "pull":
            packet = self.keep(packet, kept, compare(values, store.rows, places, known, absolute, relative, kept))
            self._number += 1
            return packet._replace(note=[self._number, packet.note])
        sums = np.empty_like(values)
        count = accumulate(values, store.rows, places, absolute, relative, sums, kept)
        return self.keep(packet._replace(values=sums), kept, count)

    def decode(self, packet: Packet) -> Packet:
        """On a pull, fill in what came last.

        Raises
        ------
        OutOfStep
            when a packet is missing since the peer last began with all values. Nothing has changed.
        """
        if self.setting.direction == "push":
            return packet
        number, dropped = packet.note
        if number not in (1, self._number + 1):
            raise OutOfStep(
                f"packet {number} of a pull came after packet {self._number}: have its sender forget what it sent, and "
                "pull again"
            )
        self._number = number
        restored, kept = self.dropped(packet) if dropped else (packet, np.ones(packet.values.shape[0], np.bool_))
        places = self._store.add(restored.entries())
        values = np.empty((kept.size, self.setting.width), self.setting.dtype)
        recall(packet.values, self._store.rows, places, kept, values)
        return restored._replace(values=values)

    def held_back(self) -> tuple[Array, Array]:
        """On a push, take out what was held back so far, to push it as it is: keys (n,) uint64, updates (n, width)."""
        waits = self._store.rows.any(axis=1)
        keys, updates = self._store.keys[waits], self._store.rows[waits]
        self._store.rows[:] = 0
        order = np.argsort(keys)
        return keys[order], updates[order]

    def hold_back(self, keys: Array, updates: Array) -> None:
        """On a push, hold these back, too: keys (n,) uint64, each once, and updates (n, width)."""
        places = self._store.add(keys)
        self._store.rows[places] += updates

    def forget(self) -> None:
        """On a pull, begin again with all values, whatever the peer has got; on a push, what is held back stays so."""
        if self.setting.direction == "pull":
            self._store.clear()
            self._number = 0
