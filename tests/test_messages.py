import types
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpips.messages import Message, Push, decode, encode
from mpips.table import TableSpec

U64 = st.integers(0, 2**64 - 1)
TABLES = st.builds(
    TableSpec,
    name=st.text(min_size=1),
    kind=st.sampled_from(["dense", "sparse"]),
    rows=st.integers(1, 2**62),
    width=st.integers(1, 99),
    dtype=st.sampled_from(["float32", "float64"]),
    rule=st.dictionaries(st.text(), st.one_of(st.text(), st.floats(allow_nan=False))),
    slots=st.integers(0, 3),
    inputs=st.integers(1, 3),
    aggregate=st.booleans(),
)
PLAIN = {
    int: U64,
    float: st.floats(allow_nan=False),
    str: st.text(),
    bytes: st.binary(),
    bool: st.booleans(),
    type(None): st.none(),
    TableSpec: TABLES,
    Any: st.recursive(
        st.one_of(st.none(), st.booleans(), U64, st.text(), st.floats(allow_nan=False)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    ),
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not TableSpec:
        return st.builds(kind, **{field.name: values_of(field.type) for field in msgspec.structs.fields(kind)})
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return st.lists(values_of(inner[0]), max_size=4)
    if origin is tuple:
        return st.tuples(*(values_of(one) for one in inner))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is dict:
        return st.dictionaries(values_of(inner[0]), values_of(inner[1]), max_size=4)
    if origin in (Union, types.UnionType):
        return st.one_of(*(values_of(one) for one in inner))
    return PLAIN[kind]


@pytest.mark.parametrize("kind", Message.__subclasses__(), ids=lambda kind: kind.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_every_message_arrives_as_it_was_sent(kind, data):
    message = data.draw(values_of(kind))
    arrived = decode(encode(message))
    assert type(arrived) is kind
    assert arrived == message


def test_a_push_of_many_keys_is_a_message_of_a_few_bytes():
    push = Push(2**40, [], 9, 1, 1, 99, 2**40, 0, 2**40, 10**6, 2**35, 2**36, None)
    assert len(encode(push)) < 72
