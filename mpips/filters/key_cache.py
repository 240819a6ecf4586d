"""A list of keys travels once; after that its signature, 64 bits, stands for it.

Source: Li et al. 2014, section 4.2, message compression.
"""

from collections import OrderedDict
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from mpips.errors import Error
from mpips.filters.base import NOTHING, Array, Direction, Filter, Packet, Part, Setting
from mpips.filters.registry import register
from mpips.kernels.key_list import signature


class KeysMissing(Error, KeyError):
    """A signature whose list of keys is not here: it never came, or had to make room.

    Attributes
    ----------
    signature : of the list.
    """

    __str__ = Exception.__str__

    def __init__(self, signature: int) -> None:
        super().__init__(f"the list of keys of signature {signature:#018x} is not here: ask the sender for it")
        self.signature = signature


class KeyCacheParameters(msgspec.Struct, frozen=True):
    """How much memory the lists may take on each side."""

    megabytes: Annotated[float, msgspec.Meta(gt=0)] = 64.0


@register("key_cache")
class KeyCache(Filter[KeyCacheParameters]):
    """Both sides keep the lists used last, and so forget the same ones.

    Of a pull it works on the request.
    """

    Parameters = KeyCacheParameters
    directions: ClassVar[tuple[Direction, ...]] = ("push", "request")
    saves_bytes_only = True
    reads: ClassVar[tuple[Part, ...]] = ("keys",)
    hides: ClassVar[tuple[Part, ...]] = ("keys",)

    def __init__(self, parameters: KeyCacheParameters, setting: Setting) -> None:
        super().__init__(parameters, setting)
        self._lists: OrderedDict[int, Array] = OrderedDict()
        self._room = int(parameters.megabytes * 1e6)
        self._used = 0

    def encode(self, packet: Packet) -> Packet:
        """Leave the keys out when they went before."""
        if isinstance(packet.keys, range) or packet.keys.size == 0:
            return packet
        name = int(signature(packet.keys))
        if name in self._lists:
            self._lists.move_to_end(name)
            return packet._replace(keys=NOTHING, note=name)
        self.learn(name, packet.keys)
        return packet._replace(note=name)

    def decode(self, packet: Packet) -> Packet:
        """Put them back.

        Raises
        ------
        KeysMissing
            when they are not here. Nothing has changed.
        """
        if packet.note is None:
            return packet
        assert not isinstance(packet.keys, range)
        if packet.keys.size:
            self.learn(packet.note, packet.keys.view(np.uint64))
            return packet
        keys = self.keys_of(packet.note)
        self._lists.move_to_end(packet.note)
        return packet._replace(keys=keys)

    def learn(self, signature: int, keys: Array) -> None:
        """Keep a copy of a list of keys (n,) uint64, and forget those used longest ago to have room for it."""
        if keys.nbytes > self._room or signature in self._lists:
            return
        kept = keys.copy()
        kept.flags.writeable = False
        self._lists[signature] = kept
        self._used += kept.nbytes
        while self._used > self._room:
            self._used -= self._lists.popitem(last=False)[1].nbytes

    def keys_of(self, signature: int) -> Array:
        """The list of a signature, (n,) uint64, read-only; the sender has it too, for a peer that misses it.

        Raises
        ------
        KeysMissing
            when it is not here.
        """
        if signature not in self._lists:
            raise KeysMissing(signature)
        return self._lists[signature]
