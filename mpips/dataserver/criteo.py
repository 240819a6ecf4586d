"""The format of the Criteo click logs: label, 13 integers and 26 categories between tabs, without a header.

An integer v above 2 becomes 2 + floor(log(v)^2), so that near values share a feature: after the winners of the Kaggle
challenge of 2014. A missing cell is a value of its own.
"""

import difflib

import numpy as np
from numpy.typing import NDArray

from mpips.comparisons import IS_ONE
from mpips.dataserver.delimited import Columns, Dialect
from mpips.dataserver.errors import DataError
from mpips.dataserver.spec import FeatureSpec
from mpips.kernels.delimited import count_records

DIALECT = Dialect(ord("\t"), -1)
_INTEGERS = tuple(f"I{i}" for i in range(1, 14))
_CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
COLUMNS = Columns(["label", *_INTEGERS, *_CATEGORIES], 0, IS_ONE, 0.0, frozenset(_INTEGERS))


def count_rows(text: NDArray[np.uint8], limit: int) -> tuple[int, int]:
    """Number of rows of a text, at most `limit`, and where the last of them ends."""
    rows, end = count_records(text, *DIALECT, limit)
    return rows, end


def features_of(features: FeatureSpec | None) -> FeatureSpec:
    """The features asked for; all 39 columns when no fields are named.

    Raises
    ------
    DataError
        A field names a column that the format does not have.
    """
    features = features or FeatureSpec()
    if not features.fields:
        return FeatureSpec(fields=_INTEGERS + _CATEGORIES, keys=features.keys)
    for name in (name for field in features.columns for name in field):
        if name not in COLUMNS.names[1:]:
            close = difflib.get_close_matches(name, COLUMNS.names[1:], 1, 0.5)
            hint = f'did you mean "{close[0]}"?' if close else "its features are I1 … I13 and C1 … C26"
            raise DataError(f'data.features.fields: the criteo format has no "{name}"; {hint}')
    return features
