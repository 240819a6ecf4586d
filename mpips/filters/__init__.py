"""Filters: what happens to keys and values on their way between worker and server.

A table has a list of filters for its pushes and one for its pulls. A push goes through a `Chain` of direction "push".
A pull goes through two, made of the same list: "request" for the keys that the worker asks for, "pull" for the values
that the server gives. Filters that drop entries come first, then `quantise` or
`delta`, `key_cache` and `compression`.

Source: Li et al. 2014, sections 3.6, 4.2 and 5.1.
"""

from mpips.filters.base import Direction, Filter, Packet, Setting
from mpips.filters.chain import Chain, Wire
from mpips.filters.compression import Compression, CompressorMissing
from mpips.filters.delta import Delta
from mpips.filters.key_cache import KeyCache, KeysMissing
from mpips.filters.kkt import Kkt
from mpips.filters.quantise import Quantise
from mpips.filters.random_skip import RandomSkip
from mpips.filters.registry import FILTERS, FilterError, make, register
from mpips.filters.significance import OutOfStep, Significance
from mpips.filters.zeros import Zeros

__all__ = [
    "FILTERS",
    "Chain",
    "Compression",
    "CompressorMissing",
    "Delta",
    "Direction",
    "Filter",
    "FilterError",
    "KeyCache",
    "KeysMissing",
    "Kkt",
    "OutOfStep",
    "Packet",
    "Quantise",
    "RandomSkip",
    "Setting",
    "Significance",
    "Wire",
    "Zeros",
    "make",
    "register",
]
