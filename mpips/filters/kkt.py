"""Entries that satisfy the optimality (Karush–Kuhn–Tucker) conditions of an L1 problem need no push.

A weight that is zero, and whose gradient is smaller than the penalty, stays zero. The algorithm says how far each key
is from that, as last learned; the filter drops the keys that are there already.

Source: Li et al. 2014, section 5.1, the KKT filter.
"""

from typing import Annotated

import msgspec
import numpy as np

from mpips.filters.base import Array, Filter, Packet, Setting
from mpips.filters.registry import register
from mpips.filters.store import KeyStore
from mpips.kernels.significance import violated


class KktParameters(msgspec.Struct, frozen=True):
    """Up to which violation of the conditions a key is not pushed."""

    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.0


@register("kkt")
class Kkt(Filter[KktParameters]):
    """Works on a push.

    Attributes
    ----------
    tolerance : up to which violation a key is dropped; may be set at any time.
    dropped_entries : how many entries were dropped so far.
    """

    Parameters = KktParameters
    directions = ("push",)

    def __init__(self, parameters: KktParameters, setting: Setting) -> None:
        super().__init__(parameters, setting)
        self.tolerance = parameters.tolerance
        self.dropped_entries = 0
        self._violations = KeyStore(1, "float64", setting.rows)

    def learn(self, keys: Array, violation: Array) -> None:
        """Say how much each key (n,) uint64 violates the conditions (n,); what was said of it before is replaced."""
        places = self._violations.add(keys)
        self._violations.rows[places, 0] = violation

    def forget(self) -> None:
        """Want all keys again, until something is learned of them."""
        self._violations.clear()

    def wanted(self, keys: Array) -> Array:
        """Which of the keys (n,) uint64 are pushed, (n,) bool: unknown ones, and those that violate the conditions."""
        return self._wanted(keys)[0]

    def choose(self, keys: Array) -> Array:
        """The same, and count the others as dropped: for an algorithm that does not even compute their values."""
        kept, count = self._wanted(keys)
        self.dropped_entries += kept.size - count
        return kept

    def _wanted(self, keys: Array) -> tuple[Array, int]:
        kept = np.empty(keys.size, np.bool_)
        return kept, violated(self._violations.find(keys), self._violations.rows, float(self.tolerance), kept)

    def encode(self, packet: Packet) -> Packet:
        """Drop the keys that are not wanted."""
        kept, count = self._wanted(packet.entries())
        self.dropped_entries += kept.size - count
        return self.keep(packet, kept, count)

    def decode(self, packet: Packet) -> Packet:
        """What was dropped stays away."""
        return packet
