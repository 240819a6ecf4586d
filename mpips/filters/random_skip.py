"""A random part of a push: each entry goes with probability p and then counts 1/p, so that its expectation is right."""

from typing import Annotated

import msgspec
import numpy as np

from mpips.filters.base import Filter, Packet, Setting
from mpips.filters.registry import register
from mpips.kernels.select import draw_rows


class RandomSkipParameters(msgspec.Struct, frozen=True):
    """With which probability an entry is sent, and where its random numbers begin."""

    probability: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


@register("random_skip")
class RandomSkip(Filter[RandomSkipParameters]):
    """Works on a push."""

    Parameters = RandomSkipParameters
    directions = ("push",)

    def __init__(self, parameters: RandomSkipParameters, setting: Setting) -> None:
        super().__init__(parameters, setting)
        self._counter = np.uint64(setting.counter(self.name, parameters.seed))

    def encode(self, packet: Packet) -> Packet:
        """Drop entries at random, and scale the rest."""
        kept = np.empty(packet.values.shape[0], np.bool_)
        count = draw_rows(self.parameters.probability, self._counter, kept)
        self._counter = self._counter + np.uint64(kept.size)
        return self.keep(packet, kept, count, 1 / self.parameters.probability)

    def decode(self, packet: Packet) -> Packet:
        """What was dropped stays away."""
        return packet
