"""Changes since a key was last sent, rounded to steps, and these in few more bits than their entropy.

Both sides keep what the receiver has. An error of rounding is part of the next change, so that it does not grow; and as
values come to rest the changes are zero, which take a small part of a bit. It suits values that say how things are:
weights that are pulled, derivatives that a batch solver pushes. Updates that add up lose what is less than half a step.

Source: Mishchenko et al. 2019, "Distributed learning with compressed gradient differences" (DIANA).
"""

from typing import Annotated

import msgspec
import numpy as np

from mpips.filters.base import Array, Filter, Packet, Setting
from mpips.filters.registry import register
from mpips.filters.significance import OutOfStep
from mpips.filters.store import KeyStore
from mpips.kernels.delta import KINDS, advance, kinds_of, steps_of, to_numbers
from mpips.kernels.range_coder import decode_numbers, encode_numbers


class DeltaParameters(msgspec.Struct, frozen=True):
    """The size of a step: the largest of the three.

    Parameters
    ----------
    absolute : in units of the values.
    relative : times the value that the receiver has.
    spread : times the root mean square of the changes of the column in this packet.
    """

    absolute: Annotated[float, msgspec.Meta(gt=0)] = 0.01
    relative: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    spread: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0


@register("delta")
class Delta(Filter[DeltaParameters]):
    """The note has the number of the packet and the steps of its columns.

    A packet with NaN or infinite values, or that would not get smaller, goes as it is, and is not a change.
    """

    Parameters = DeltaParameters
    saves_bytes_only = True
    hides = ("values",)

    def __init__(self, parameters: DeltaParameters, setting: Setting) -> None:
        super().__init__(parameters, setting)
        self._held = KeyStore(2 * setting.width, setting.dtype, setting.rows)
        self._number = 0

    def encode(self, packet: Packet) -> Packet:
        """Tell the changes."""
        values, relative = packet.values, self.parameters.relative
        places = self._held.add(packet.entries())
        held, steps = self._held.rows, np.empty(self.setting.width, np.float32)
        numbers, coded = np.empty(values.shape, np.int64), np.empty(values.nbytes, np.uint8)
        if not steps_of(values, held, places, self.parameters.absolute, self.parameters.spread, steps):
            return packet
        if not to_numbers(values, held, places, steps, relative, numbers):
            return packet
        size = encode_numbers(numbers, self._kinds(places), KINDS, coded)
        if size >= values.nbytes:
            return packet
        advance(numbers, held, places, steps, relative, np.empty_like(values))
        self._number += 1
        return packet._replace(values=coded[:size], note=[self._number, steps.tobytes()])

    def decode(self, packet: Packet) -> Packet:
        """Add them to what is here.

        Raises
        ------
        OutOfStep
            when a packet is missing since the peer began. Nothing has changed.
        """
        if packet.note is None:
            return packet
        number, steps = packet.note
        if number not in (1, self._number + 1):
            raise OutOfStep(
                f"packet {number} of changes came after packet {self._number}: have its sender forget what it sent, "
                "and send again"
            )
        if number == 1:
            self._held.clear()
        self._number = number
        places = self._held.add(packet.entries())
        numbers = np.empty((places.size, self.setting.width), np.int64)
        decode_numbers(packet.values, self._kinds(places), KINDS, numbers)
        values = np.empty(numbers.shape, self.setting.dtype)
        advance(numbers, self._held.rows, places, np.frombuffer(steps, np.float32), self.parameters.relative, values)
        return packet._replace(values=values)

    def _kinds(self, places: Array) -> Array:
        kinds = np.empty((places.size, self.setting.width), np.uint8)
        kinds_of(self._held.rows, places, kinds)
        return kinds

    def forget(self) -> None:
        """Begin again, whatever the peer has."""
        self._held.clear()
        self._number = 0
