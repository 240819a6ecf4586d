"""Entries whose values are all zero: a push leaves them out, a pull puts them back.

Source: Li et al. 2014, section 4.2, message compression.
"""

import numpy as np

from mpips.filters.base import Filter, NoParameters, Packet
from mpips.filters.registry import register
from mpips.kernels.select import nonzero_rows, spread_rows


@register("zeros")
class Zeros(Filter[NoParameters]):
    """A push drops the entries without values: servers see no update of these keys, not one of zero."""

    def encode(self, packet: Packet) -> Packet:
        """Drop what is all zero."""
        kept = np.empty(packet.values.shape[0], np.bool_)
        return self.keep(packet, kept, nonzero_rows(packet.values, kept))

    def decode(self, packet: Packet) -> Packet:
        """On a pull, put the zeros back."""
        if not (packet.note and self.setting.direction == "pull"):
            return packet
        restored, kept = self.dropped(packet)
        values = np.empty((kept.size, self.setting.width), self.setting.dtype)
        spread_rows(packet.values, kept, values)
        return restored._replace(values=values)
