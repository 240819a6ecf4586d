"""Keys and values through a compressor of blosc2; what does not get smaller goes as it is.

Keys are sorted, or sorted by shard: their differences, bits of like significance together, take a fifth to a tenth
where the keys are small numbers. Source: Li et al. 2014, section 4.2, message compression.
"""

from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

from mpips.errors import Error
from mpips.filters.base import Array, Direction, Filter, Packet, Part, Setting
from mpips.filters.registry import register
from mpips.kernels.key_list import from_differences, to_differences

FEWEST_BYTES = 128
LEVEL = 1


class CompressionParameters(msgspec.Struct, frozen=True):
    """The compressor: zstd compresses more, lz4 and blosclz are faster."""

    codec: Literal["zstd", "lz4", "blosclz"] = "lz4"


class CompressorMissing(Error, ImportError):
    """blosc2 is not installed."""


@register("compression")
class Compression(Filter[CompressionParameters]):
    """The note has the sizes of keys and values before they were compressed, 0 where they were not."""

    Parameters = CompressionParameters
    directions: ClassVar[tuple[Direction, ...]] = ("push", "request", "pull")
    saves_bytes_only = True
    reads: ClassVar[tuple[Part, ...]] = ()
    hides: ClassVar[tuple[Part, ...]] = ("keys", "values")

    def __init__(self, parameters: CompressionParameters, setting: Setting) -> None:
        super().__init__(parameters, setting)
        try:
            import blosc2  # takes a quarter of a second: only for jobs that compress
        except ImportError as error:
            raise CompressorMissing('filter "compression" needs the package blosc2: pip install blosc2') from error
        self._blosc2 = blosc2
        self._codec = blosc2.Codec[parameters.codec.upper()]

    def encode(self, packet: Packet) -> Packet:
        """Compress what gets smaller."""
        keys, of_keys = packet.keys, 0
        travel = self.setting.direction != "pull"
        if travel and isinstance(keys, np.ndarray) and keys.dtype == np.uint64 and keys.nbytes >= FEWEST_BYTES:
            differences = np.empty_like(keys)
            to_differences(keys, differences)
            keys, of_keys = self._smaller(differences, keys, self._blosc2.Filter.BITSHUFFLE)
        values, of_values = packet.values, 0
        if values.nbytes >= FEWEST_BYTES:
            values, of_values = self._smaller(values, values, self._blosc2.Filter.SHUFFLE)
        note = [of_keys, of_values] if of_keys or of_values else None
        return packet._replace(keys=keys, values=values, note=note)

    def _smaller(self, array: Array, otherwise: Array, shuffle: Any) -> tuple[Array, int]:
        if array.nbytes > self._blosc2.MAX_BUFFERSIZE:
            return otherwise, 0
        compressed = self._blosc2.compress2(
            array,
            codec=self._codec,
            clevel=LEVEL,
            filters=[shuffle],
            filters_meta=[0],
            typesize=array.itemsize,
            nthreads=1,  # a pool of threads would cost more than it saves
        )
        if len(compressed) >= array.nbytes:
            return otherwise, 0
        return np.frombuffer(compressed, np.uint8), array.nbytes

    def decode(self, packet: Packet) -> Packet:
        """Expand it again."""
        if packet.note is None:
            return packet
        of_keys, of_values = packet.note
        keys, values = packet.keys, packet.values
        if of_keys:
            keys = self._expanded(keys, of_keys).view(np.uint64)
            from_differences(keys)
        if of_values:
            values = self._expanded(values, of_values)
        return packet._replace(keys=keys, values=values)

    def _expanded(self, compressed: Any, size: int) -> Array:
        expanded = np.empty(size, np.uint8)
        self._blosc2.decompress2(compressed, dst=expanded, nthreads=1)
        return expanded
