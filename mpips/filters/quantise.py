"""Fixed point: each value in one to four bytes, as steps of a size that fits its column in this packet.

Steps are rounded up or down at random, so that their expectation is right; a push adds the rounding error of a key to
its next value.

The error feedback is that of Seide et al. 2014, "1-bit stochastic gradient descent".
"""

from typing import Annotated

import msgspec
import numpy as np

from mpips.filters.base import Filter, Packet, Setting
from mpips.filters.registry import register
from mpips.filters.store import KeyStore
from mpips.kernels.quantise import from_steps, steps_of, to_steps

NO_PLACES = np.empty(0, np.int64)


class QuantiseParameters(msgspec.Struct, frozen=True):
    """Bytes of a value, and where the random numbers begin."""

    bytes: Annotated[int, msgspec.Meta(ge=1, le=4)] = 2
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


@register("quantise")
class Quantise(Filter[QuantiseParameters]):
    """The largest magnitude of a column is 2^(8·bytes - 1) - 1 steps; the note has the step of each column.

    A packet with NaN or infinite values is left as it is.
    """

    Parameters = QuantiseParameters
    saves_bytes_only = True
    hides = ("values",)

    def __init__(self, parameters: QuantiseParameters, setting: Setting) -> None:
        super().__init__(parameters, setting)
        self._levels = float((1 << (8 * parameters.bytes - 1)) - 1)
        self._counter = np.uint64(setting.counter(self.name, parameters.seed))
        self._carried = KeyStore(setting.width, setting.dtype, setting.rows)

    def encode(self, packet: Packet) -> Packet:
        """Round to steps."""
        values = packet.values
        if values.size == 0:
            return packet
        places = self._carried.add(packet.entries()) if self.setting.direction == "push" else NO_PLACES
        carried = self._carried.rows
        steps = np.empty(self.setting.width)
        if not steps_of(values, carried, places, self._levels, steps):
            return packet
        planes = np.empty((self.parameters.bytes, values.size), np.uint8)
        to_steps(values, carried, places, self._levels, steps, self._counter, planes)
        self._counter = self._counter + np.uint64(values.size)
        return packet._replace(values=planes, note=steps.tobytes())

    def decode(self, packet: Packet) -> Packet:
        """Multiply by the steps."""
        if packet.note is None:
            return packet
        planes = packet.values.reshape(self.parameters.bytes, -1)
        values = np.empty((planes.shape[1] // self.setting.width, self.setting.width), self.setting.dtype)
        from_steps(planes, self._levels, np.frombuffer(packet.note), values)
        return packet._replace(values=values)
